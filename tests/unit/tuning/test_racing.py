"""Strategies find what the full grid finds, for less, where their assumptions hold; and say so in evaluations."""

import math

import numpy as np
import pytest

from mergebench.tuning import racing
from mergebench.tuning.budget import Budget
from tests.unit.tuning.played import GRIDS, numbered, peaked, trials


def test_the_full_grid_is_asked_for_in_its_order():
    table, source = trials("ties", peaked(0.4))
    racing.full(table)
    assert [key.candidate for key in source.made] == list(range(30))


@pytest.mark.parametrize("at", GRIDS["task_arithmetic"]["scale"])
def test_golden_section_finds_the_peak_of_a_single_hill(at):
    table, source = trials("task_arithmetic", peaked(at))
    racing.golden(table)
    assert table.candidates[table.best()].scale == at
    assert len(source.made) <= 5


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 13, 30])
def test_a_line_of_any_length_ends_at_its_highest_value(count):
    for best in range(count):
        line, asked = racing.Line(range(count)), set()
        for _ in range(count + 2):
            asked |= set(line.wanted)
            if not line.wanted:
                break
            line.narrow(lambda number, best=best: -abs(number - best))
        assert line.wanted == []
        assert best in asked
        fibonacci = next(k for k in range(2, 12) if _fibonacci(k) > count)
        assert len(asked) <= max(1, fibonacci - 1)


def _fibonacci(number: int) -> int:
    return round(((1 + math.sqrt(5)) / 2) ** (number + 1) / math.sqrt(5))


def test_golden_section_searches_every_line_of_the_other_parameters():
    table, source = trials("ties", lambda c, *_: 1 - (c.scale - 0.3 - c.parameters["density"]) ** 2 - c.parameters["density"])
    racing.golden(table)
    best = table.candidates[table.best()]
    assert (best.parameters["density"], best.scale) == (0.1, 0.4)
    assert len(source.made) <= 15


def test_golden_section_scores_everything_where_there_is_no_scale():
    table, source = trials("regmean", lambda c, *_: c.parameters["reduction"])
    racing.golden(table)
    assert len(source.made) == 5


def test_halving_drops_what_is_clearly_worse_and_scores_the_winner_on_everything():
    table, source = trials("ties", peaked(0.4, noise=0.02), blocks=4)
    racing.halving(table)
    full, _ = trials("ties", peaked(0.4, noise=0.02))
    racing.full(full)
    assert table.candidates[table.best()].scale == full.candidates[full.best()].scale == 0.4
    assert table.complete(table.best())
    assert table.objective(table.best()) == pytest.approx(full.objective(table.best()), abs=1e-12)
    assert len(source.made) < 30 * 4 * 0.6


def test_halving_keeps_candidates_that_cannot_be_told_apart():
    """All equal: nobody leaves, and the first in the order of the grid wins as with the full grid."""
    table, source = trials("task_arithmetic", lambda *_: 0.5, blocks=4)
    racing.halving(table)
    assert len(source.made) == 40
    assert table.best() == 0


def test_halving_compares_pairs_and_not_means():
    """Items differ more than candidates do: only the differences, item by item, tell the candidates apart."""

    def outcome(candidate, seed, surrogate, item):
        return 10 * (item % 2) + candidate.scale

    table, source = trials("task_arithmetic", outcome, blocks=4)
    racing.halving(table)
    assert table.candidates[table.best()].scale == 1.0
    assert len(source.made) == 10 + 5 + 3 + 2


def test_values_of_different_domains_do_not_race_each_other():
    """One domain's candidates all beat the other's; each domain keeps its best half."""
    consensus = {number: c for number, c in enumerate(_consensus()) if c.stage == "domain"}
    table, source = trials("task_arithmetic", lambda c, *_: (c.domains == ("math",)) * 10 + _threshold(c), blocks=2)
    table.candidates = consensus
    racing.halving(table)
    left = [key.candidate for key in source.made if key.block == 1]
    assert {consensus[number].domains for number in left} == {("math",), ("safety",)}


def _consensus():
    from mergebench.merging.candidates import candidates

    return candidates("consensus_ta", {"threshold": [0.2, 0.3, 0.4, 0.5], "scale": [0.5]}, ("math", "safety"))


def _threshold(candidate):
    (value,) = candidate.parameters["thresholds"].values()
    return value


def test_the_error_of_a_paired_difference_is_that_of_a_sample_without_replacement():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(10, 40))
    table, _ = trials("task_arithmetic", lambda c, seed, surrogate, item: values[round(c.scale * 10) - 1, item], blocks=2)
    table.ask([0, 1], 0)
    difference, error = table.difference(1, 0)
    assert difference == pytest.approx(table.objective(1) - table.objective(0))
    assert error > 0
    table.ask([0, 1], 1)
    assert table.difference(1, 0)[1] == 0
    # Half of the items, two surrogates of weight 1/2 over a reference of 0.5 each: sqrt(2 * (1/2 * 2)^2 * (1 - 1/2) * var / 20).
    apart = values[1] - values[0]
    assert error == pytest.approx(np.sqrt(2 * 0.5 * apart.var(ddof=1) / 20), rel=0.5)


@pytest.mark.parametrize("method", GRIDS)
def test_every_beginning_of_the_spread_order_covers_the_grid(method):
    members = numbered(method)
    order = racing.spread(members)
    assert sorted(order) == list(members)
    if method == "ties":
        assert {members[number].parameters["density"] for number in order[:6]} == {0.1, 0.2, 0.3}
        scales = sorted(members[number].scale for number in order[:6])
        assert scales[0] <= 0.2
        assert scales[-1] >= 0.9


def test_a_budget_cuts_every_strategy_off():
    for strategy, blocks in ((racing.full, 1), (racing.golden, 1), (racing.halving, 4)):
        budget = Budget(evaluations=4)
        table, _ = trials("ties", peaked(0.4), blocks=blocks, budget=budget)
        strategy(table)
        assert 3 < budget.spent_evaluations <= 4 + 1e-9
