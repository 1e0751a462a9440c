"""The counts of a search are those of the candidates that tuning makes, and for the paper those of its Table 6."""

import pytest

from mergebench.merging.candidates import candidates
from mergebench.merging.directions import Direction
from mergebench.merging.registry import get
from mergebench.tuning.racing import Line
from mergebench.workflow.searches import fewest, fibonacci, search, searches
from tests.unit.workflow.test_plan import plan

# Table 6: runs of each method, and the weight sets that they need, one for all values of the scale.
TABLE_6 = {
    "task_arithmetic": (10, 1),
    "regmean": (5, 5),
    "ties": (30, 3),
    "dare": (30, 3),
    "consensus_ta": (25 + 10, 25 + 1),
    "dataless_localize_and_stitch": (5, 5),
}


@pytest.mark.parametrize("preset", ["paper", "tiny", "tiny-full"])
def test_115_candidates_per_base_need_43_weight_sets(preset):
    found = {s.method: (s.candidates, s.builds) for s in searches(plan(preset))}
    assert found == TABLE_6
    assert [sum(counts) for counts in zip(*found.values(), strict=True)] == [115, 43]


@pytest.mark.parametrize("preset", ["paper", "micro"])
def test_counts_are_those_of_the_candidates_and_the_papers_grids_the_catalogues(preset):
    made = plan(preset)
    for found in searches(made):
        chosen = made.preset.merging.methods[found.method]
        listed = candidates(found.method, chosen.grid, made.domains, chosen.parameters)
        assert found.candidates == found.evaluations == len(listed)
        assert found.points == sum(c.stage == "grid" for c in listed)
        distinct: list[Direction] = []
        for candidate in listed:
            direction, _ = Direction.of(candidate.method, candidate.recipe)
            distinct += [direction] if direction not in distinct else []
        assert found.builds == len(distinct)
        domains = sum(len(c.domains) for c in listed)
        assert found.passes == domains / len(made.domains), "a candidate of one domain is scored on its surrogates alone"
        if preset == "paper":
            assert {name: list(values) for name, values in get(found.method).grid.items()} == chosen.grid


def test_seeds_multiply_what_depends_on_them():
    once, thrice = (searches(plan("paper", lambda p, n=n: p.update(tuning={"seeds": n}))) for n in (1, 3))
    for before, after in zip(once, thrice, strict=True):
        factor = 3 if before.method == "dare" else 1
        assert after.candidates == before.candidates
        assert (after.builds, after.evaluations, after.passes) == tuple(
            factor * count for count in (before.builds, before.evaluations, before.passes)
        )


def test_a_grid_without_scale_builds_every_point():
    made = plan("paper", lambda p: p["merging"]["methods"].update(ties={"grid": {"density": [0.1, 0.2]}}))
    assert (search(made, "ties").candidates, search(made, "ties").builds) == (2, 2)


@pytest.mark.parametrize("size", range(1, 31))
def test_the_steps_of_golden_section_are_the_searchs_own(size):
    most = 0
    for peak in range(size):
        line, asked = Line(list(range(size))), set()
        while line.wanted:
            asked |= set(line.wanted)
            line.narrow(lambda number, peak=peak: -abs(number - peak))
        most = max(most, len(asked))
    assert fibonacci(size) == most


def test_racing_scores_less_than_the_grid():
    def with_search(name):
        return plan("paper", lambda p: p.update(tuning={"search": name, "halving": {"blocks": 4, "keep": 0.5}}))

    for method, (candidates_, _) in TABLE_6.items():
        grid, halving, golden = (fewest(with_search(name), search(with_search(name), method)) for name in ("grid", "halving", "golden"))
        assert grid == candidates_
        assert halving < grid
        assert golden <= grid
    # 4 blocks: 30 candidates, then 15, 8 and 4 on a quarter of the items each.
    assert fewest(with_search("halving"), search(with_search("halving"), "ties")) == (30 + 15 + 8 + 4) / 4
    assert fewest(with_search("golden"), search(with_search("golden"), "ties")) == 3 * 5
