"""Intervals of normalised scores, paired tests, and what is not separable from the best."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mergebench.analysis.comparisons import best_group, compare, holm
from mergebench.analysis.normalise import performance_cells, recovery_cells
from mergebench.analysis.resampling import weights
from mergebench.analysis.scope import Scope
from mergebench.analysis.uncertainty import ALL_BASES, ALL_DOMAINS, Draws, Where, carry, intervals

RESAMPLES = 400
BENCHMARKS = {"gsm8k": "math", "math": "math", "ifeval": "instruction"}
Items = dict[tuple[str, str, str], np.ndarray]


def scope(bases: int = 1, methods: tuple[str, ...] = ("ties", "dare")) -> Scope:
    return Scope.from_spec(
        {
            "bases": [f"base{number}" for number in range(bases)],
            "methods": list(methods),
            "domains": ["math", "instruction"],
            "benchmarks": {name: {"domain": domain, "role": "in_domain"} for name, domain in BENCHMARKS.items()},
            "tuned": [],
            "statistics": {},
            "multitask": False,
        }
    )


def outcomes(campaign: Scope, seed: int = 0, n: int = 60) -> Items:
    """Random outcomes of all models, better for the own specialist."""
    generator = np.random.default_rng(seed)
    chance = {"base": 0.3, "specialist_math": 0.5, "specialist_instruction": 0.5}
    found = {}
    for base in campaign.bases:
        for model in campaign.models:
            for name, domain in BENCHMARKS.items():
                p = 0.8 if model == f"specialist_{domain}" else chance.get(model, 0.6)
                found[base, model, name] = (generator.random(n) < p).astype(float)
    return found


def table(items: Items) -> pd.DataFrame:
    rows = [(*key, values.mean(), 0.01) for key, values in items.items()]
    return pd.DataFrame(rows, columns=["base", "model", "benchmark", "value", "standard_error"])


def resampled(items: Items, resamples: int = RESAMPLES) -> Items:
    drawn = {name: weights(name, np.zeros(len(v), dtype=np.int64), range(resamples)) for (_, _, name), v in items.items()}
    return {key: drawn[key[2]] @ values / len(values) for key, values in items.items()}


def carried(campaign: Scope, items: Items, cells: pd.DataFrame | None = None) -> Draws:
    return carry(performance_cells(table(items), campaign) if cells is None else cells, resampled(items), RESAMPLES)


def test_a_method_equal_to_the_specialists_has_100_and_no_width() -> None:
    campaign = scope(2)
    items = outcomes(campaign)
    for (base, model, name), values in list(items.items()):
        if model == f"specialist_{BENCHMARKS[name]}":
            items[base, "merged_ties", name] = values
    found = intervals(carried(campaign, items)).set_index(["base", "model", "domain"])
    mine = found.xs("merged_ties", level="model")
    assert len(mine) == 2 * 3 + 1
    assert mine[["value", "low", "high"]].to_numpy() == pytest.approx(100.0)
    assert (mine["standard_error"] < 1e-9).all()
    assert (found.xs("merged_dare", level="model")["standard_error"] > 1).all()


def test_the_noise_of_the_specialist_is_carried_along() -> None:
    """A model that is always right has no noise of its own; its ratio still has."""
    campaign = scope()
    items = outcomes(campaign)
    for key in items:
        if key[1] == "merged_ties":
            items[key] = np.ones(60)
    spread = carried(campaign, items)[Where("base0", "merged_ties", "instruction")][1:].std()
    reference = items["base0", "specialist_instruction", "ifeval"]
    assert spread == pytest.approx(100 * stats.sem(reference) / reference.mean() ** 2, rel=0.15)


def test_values_are_those_of_the_tables() -> None:
    """Mean over the benchmarks of a domain, then over domains, then over bases."""
    campaign = scope(2)
    items = outcomes(campaign)

    def share(base: str, name: str) -> float:
        return float(items[base, "merged_ties", name].mean() / items[base, f"specialist_{BENCHMARKS[name]}", name].mean())

    each = [((share(base, "gsm8k") + share(base, "math")) / 2 + share(base, "ifeval")) / 2 for base in campaign.bases]
    draws = carried(campaign, items)
    assert draws[Where(ALL_BASES, "merged_ties", ALL_DOMAINS)][0] == pytest.approx(100 * np.mean(each))


def test_recovery_of_the_base_is_exactly_zero() -> None:
    campaign = scope()
    items = outcomes(campaign)
    draws = carried(campaign, items, recovery_cells(table(items), campaign))
    assert (draws[Where("base0", "base", ALL_DOMAINS)] == 0).all()


def test_what_is_missing_is_unknown_not_zero() -> None:
    campaign = scope(2)
    items = outcomes(campaign)
    del items["base0", "merged_ties", "math"]
    draws = carried(campaign, items)
    for where in (Where("base0", "merged_ties", "math"), Where("base0", "merged_ties", ALL_DOMAINS)):
        assert np.isnan(draws[where]).all()
    assert np.isnan(draws[Where(ALL_BASES, "merged_ties", ALL_DOMAINS)]).all()
    assert np.isfinite(draws[Where("base1", "merged_ties", ALL_DOMAINS)]).all()
    assert np.isfinite(draws[Where("base0", "merged_ties", "instruction")]).all()


def test_a_score_without_items_has_a_value_and_no_interval() -> None:
    campaign = scope()
    items = outcomes(campaign)
    known = resampled(items)
    del known["base0", "merged_ties", "math"]
    draws = carry(performance_cells(table(items), campaign), known, RESAMPLES)[Where("base0", "merged_ties", ALL_DOMAINS)]
    assert np.isfinite(draws[0])
    assert np.isnan(draws[1:]).all()


def test_a_benchmark_that_does_not_count_is_in_no_draw() -> None:
    campaign = scope()
    items = outcomes(campaign)
    items["base0", "specialist_math", "math"] = np.zeros(60)
    draws = carried(campaign, items)
    ratio = items["base0", "merged_ties", "gsm8k"].mean() / items["base0", "specialist_math", "gsm8k"].mean()
    assert draws[Where("base0", "merged_ties", "math")][0] == pytest.approx(100 * ratio)
    assert np.isfinite(draws[Where("base0", "merged_ties", "math")]).all()


def test_intervals_cover_the_true_value_as_often_as_they_say() -> None:
    """200 campaigns whose true normalised performance is known; items are harder or easier for all models alike."""
    campaign, truth, n = scope(methods=("ties",)), 0.5 / 0.7, 120
    cells = performance_cells(table(outcomes(campaign)), campaign)
    covered = []
    drawn = {name: weights(name, np.zeros(n, dtype=np.int64), range(RESAMPLES)) for name in BENCHMARKS}
    generator = np.random.default_rng(11)
    for _ in range(200):
        items = {}
        for name, domain in BENCHMARKS.items():
            ease = generator.uniform(-0.25, 0.25, n)
            for model in campaign.models:
                p = {f"specialist_{domain}": 0.7, "merged_ties": 0.5}.get(model, 0.4)
                items["base0", model, name] = (generator.random(n) < p + ease).astype(float)
        cells = performance_cells(table(items), campaign)
        draws = carry(cells, {key: drawn[key[2]] @ values / n for key, values in items.items()}, RESAMPLES)
        found = intervals({where: each for where, each in draws.items() if where == ("base0", "merged_ties", ALL_DOMAINS)}).iloc[0]
        covered.append(found["low"] <= 100 * truth <= found["high"])
    assert 0.91 <= np.mean(covered) <= 0.985


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_p_value_is_that_of_a_paired_test() -> None:
    generator = np.random.default_rng(5)
    ease = generator.random(400)
    one, other = ((generator.random(400) < 0.25 * shift + 0.7 * ease).astype(float) for shift in (1.0, 0.75))
    drawn = weights("some", np.zeros(400, dtype=np.int64), range(4000)) / 400
    draws = {name: np.concatenate([[values.mean()], drawn @ values]) for name, values in (("one", one), ("other", other))}
    expected = stats.ttest_rel(one, other)
    found = compare(draws).iloc[0]
    assert found["p"] == pytest.approx(expected.pvalue, rel=0.1)
    interval = expected.confidence_interval()
    assert sorted([abs(found["low"]), abs(found["high"])]) == pytest.approx(sorted([abs(interval.low), abs(interval.high)]), abs=0.006)


def test_pairing_separates_what_unpaired_noise_would_hide() -> None:
    hard = np.random.default_rng(6).random(300) < 0.5
    one, other = hard.astype(float), np.where(np.arange(300) < 30, 0.0, hard)
    drawn = weights("some", np.zeros(300, dtype=np.int64), range(1000)) / 300
    draws = {name: np.concatenate([[values.mean()], drawn @ values]) for name, values in (("one", one), ("other", other))}
    assert stats.ttest_ind(one, other).pvalue > 0.1
    assert best_group(draws, compare(draws)) == ("one",)


def test_equal_methods_are_not_separable() -> None:
    noisy = np.random.default_rng(7).normal(50, 1, 101)
    draws = {"one": noisy, "two": noisy + 1e-12, "three": noisy - 20}
    assert best_group(draws, compare(draws)) == ("one", "two")


def test_equal_methods_are_called_different_in_one_campaign_of_twenty_at_most() -> None:
    """Five methods without a difference: the best of them stands alone, or apart from one, by chance only."""
    generator = np.random.default_rng(8)
    drawn = weights("some", np.zeros(100, dtype=np.int64), range(300)) / 100
    wrong = 0
    for _ in range(200):
        values = generator.random((5, 100))
        draws = {f"m{k}": np.concatenate([[row.mean()], drawn @ row]) for k, row in enumerate(values)}
        wrong += len(best_group(draws, compare(draws))) < 5
    assert wrong <= 18  # 10 expected at most; the 99 % point of the binomial distribution


def test_a_method_without_draws_is_compared_with_nobody() -> None:
    noisy = np.random.default_rng(9).normal(50, 1, 101)
    draws = {"one": noisy, "unknown": np.full(101, np.nan), "two": noisy - 9}
    pairs = compare(draws)
    assert set(pairs["better"]) | set(pairs["worse"]) == {"one", "two"}
    assert best_group({"unknown": np.full(101, np.nan)}, compare({})) == ()
