"""On how many clusters two models' outcomes differ, and what a paired test makes of few."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mergebench.analysis.comparisons import compare, difference
from mergebench.analysis.disagreement import between_methods, disagreements
from mergebench.analysis.items import read_outcomes
from mergebench.analysis.resampling import weights
from mergebench.analysis.scope import Scope
from mergebench.evaluation.aggregate import Item
from tests.unit.analysis.synthetic import Campaign, write_items
from tests.unit.analysis.test_resampling import MAKERS, outcomes, written

LLAMA, GEMMA = "tiny-llama-strong", "tiny-gemma-2-strong"
ONE, OTHER = ("base", "m0"), ("base", "m1")


def by_hand(items: list[Item], aggregate: str) -> dict[str, np.ndarray]:
    """What each cluster adds to the score: of every language its outcome, or counts."""
    languages = sorted({item.group for item in items})
    found: dict[str, np.ndarray] = {}
    for item in items:
        values = item.extra["counts"] if "bleu" in aggregate else [item.outcome * (item.group == each) for each in languages]
        name = item.id.removeprefix(f"{item.group}/")
        found[name] = found.get(name, np.zeros(len(values))) + values
    return found


@pytest.mark.parametrize("aggregate", MAKERS)
def test_clusters_are_counted_whose_part_of_the_score_differs(tmp_path: Path, aggregate: str) -> None:
    read, made = outcomes(tmp_path, aggregate)
    one, other = (by_hand(made[name], aggregate) for name in ("m0", "m1"))
    expected = sum(bool((np.abs(one[name] - other[name]) > 1e-9).any()) for name in one)
    assert disagreements(read, [(ONE, OTHER), (OTHER, ONE), (ONE, ONE)]) == [expected, expected, 0]
    assert 0 < expected <= len(read.strata)


@pytest.mark.parametrize("aggregate", MAKERS)
def test_the_order_of_rows_is_no_disagreement(tmp_path: Path, aggregate: str) -> None:
    items = MAKERS[aggregate](np.random.default_rng(0))
    files = {ONE: written(tmp_path / "a" / "x.parquet", items), OTHER: written(tmp_path / "b" / "x.parquet", items[::-1])}
    assert disagreements(read_outcomes("some", aggregate, files), [(ONE, OTHER)]) == [0]


def test_an_item_that_one_model_lacks_is_a_disagreement(tmp_path: Path) -> None:
    files = {
        ONE: write_items(tmp_path / "a" / "x.parquet", ["a", "b", "c"], [1.0, 0.0, np.nan]),
        OTHER: write_items(tmp_path / "b" / "x.parquet", ["a", "b", "c"], [1.0, 0.0, 0.0]),
    }
    assert disagreements(read_outcomes("some", "mean", files), [(ONE, OTHER)]) == [1]


def test_differences_within_a_cluster_that_cancel_are_none(tmp_path: Path) -> None:
    items, clusters = ["a", "b", "c", "d"], ["p", "p", "q", "q"]
    files = {
        ONE: write_items(tmp_path / "a" / "x.parquet", items, [1.0, 0.0, 1.0, 1.0], clusters=clusters),
        OTHER: write_items(tmp_path / "b" / "x.parquet", items, [0.0, 1.0, 0.0, 1.0], clusters=clusters),
    }
    assert disagreements(read_outcomes("some", "mean", files), [(ONE, OTHER)]) == [1]


def drawn(difference: np.ndarray, n: int, resamples: int = 4000) -> np.ndarray:
    """A difference of n items, the first of which are given and the rest zero, and its draws."""
    values = np.concatenate([difference, np.zeros(n - len(difference))])
    return np.append(values.mean(), weights("some", np.zeros(n, dtype=np.int64), range(resamples)) @ values / n)


def p_of(gained: int, lost: int, n: int) -> float:
    values = drawn(np.array([1.0] * gained + [-1.0] * lost), n)
    return difference(values, np.zeros_like(values), gained + lost).p


@pytest.mark.parametrize("gained", [1, 2, 3, 5, 8])
def test_a_clean_sweep_is_as_likely_as_that_many_tosses_of_a_coin(gained: int) -> None:
    """All items there are, won by the same model: no draw differs from another, which is no certainty."""
    assert p_of(gained, 0, gained) == pytest.approx(stats.binomtest(gained, gained).pvalue)


@pytest.mark.parametrize(("gained", "lost"), [(4, 0), (5, 0), (6, 1), (8, 1), (12, 2), (15, 5), (30, 14), (60, 40)])
def test_p_is_close_to_that_of_the_sign_test_where_few_items_differ(gained: int, lost: int) -> None:
    """Between half and one and a half of the exact p-value; the normal one would be down to a fifth of it."""
    exact = stats.binomtest(gained, gained + lost).pvalue
    assert 0.5 * exact < p_of(gained, lost, 120) < 1.5 * exact


def test_p_of_continuous_outcomes_is_students() -> None:
    values = np.random.default_rng(0).normal(0.4, 1, 12)
    found = drawn(values, 12)
    assert difference(found, np.zeros_like(found), 12).p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=0.25)


@pytest.mark.parametrize("differing", [2, 3, 4, 6, 9, 16, 30])
def test_a_difference_by_chance_is_rarely_called_real_however_few_items_differ(differing: int) -> None:
    """Every way in which a coin may fall for each item that differs, with its probability."""
    n = 4 * differing
    wins = [(gained, stats.binom.pmf(gained, differing, 0.5)) for gained in range(differing + 1)]
    assert sum(chance for gained, chance in wins if p_of(gained, differing - gained, n) < 0.05) < 0.07


def test_many_disagreements_change_nothing() -> None:
    values = drawn(np.random.default_rng(1).normal(0.1, 1, 400), 400)
    nothing = np.zeros_like(values)
    assert difference(values, nothing, 10**7) == difference(values, nothing)
    assert difference(values, nothing, 400).p == pytest.approx(difference(values, nothing).p, rel=0.05)


def test_pairs_have_their_own_number_of_disagreements() -> None:
    noise = np.random.default_rng(2).normal(0, 1, (3, 401))
    draws = {name: 10.0 * k + each for k, (name, each) in enumerate(zip("abc", noise, strict=True))}
    counts = {frozenset("ab"): 2, frozenset("ac"): 1, frozenset("bc"): 1000}
    found = compare(draws, counts).set_index(["better", "worse"])["p"]
    assert found["b", "a"] == 0.5
    assert found["c", "a"] == 1.0
    assert found["c", "b"] < 1e-6


def test_disagreements_are_added_up_over_what_counts(tmp_path: Path) -> None:
    """Two bases; a benchmark whose specialist fails counts on neither side of the sum."""
    campaign = Campaign(tmp_path, methods=["ties", "model_soup"]).write()
    right = np.ones(20)
    for base, differing in ((LLAMA, 3), (GEMMA, 5)):
        for benchmark, reference in (("gsm8k", 1.0), ("math", 0.0)):
            campaign.write_items(base, "specialist_math", benchmark, reference * right)
            campaign.write_items(base, "merged_ties", benchmark, right)
            campaign.write_items(base, "merged_model_soup", benchmark, np.arange(20) >= differing)
    evidence = campaign.evidence()
    found = evidence.resamples.disagreements
    assert found[LLAMA, "math", frozenset({"merged_ties", "merged_model_soup"})] == 3
    pair = frozenset({"ties", "model_soup"})
    assert between_methods(found, evidence.performance, evidence.scope, LLAMA) == {pair: 3}
    assert between_methods(found, evidence.performance, evidence.scope, None) == {pair: 8}
    assert between_methods(found, evidence.retention, evidence.scope, None) == {pair: 0}


def test_of_several_seeds_the_two_count_that_differ_most(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, bases=[LLAMA], methods=["dare", "ties"], seeds={"dare": {"merged_dare": 0, "merged_dare-seed1": 1}})
    campaign.write()
    campaign.write_items(LLAMA, "merged_ties", "gsm8k", np.ones(20))
    campaign.write_items(LLAMA, "merged_dare", "gsm8k", np.arange(20) >= 2)
    campaign.write_items(LLAMA, "merged_dare-seed1", "gsm8k", np.arange(20) >= 7)
    evidence = campaign.evidence()
    found = between_methods(evidence.resamples.disagreements, evidence.performance, evidence.scope, LLAMA)
    assert found == {frozenset({"dare", "ties"}): 7}


def test_a_handful_of_items_separates_no_methods(tmp_path: Path) -> None:
    """Three items of one benchmark, all right and all wrong: a coin does that once in four times."""
    campaign = Campaign(tmp_path, bases=[LLAMA], methods=["ties", "dare"])
    spec = campaign.spec | {"benchmarks": {"gsm8k": campaign.spec["benchmarks"]["gsm8k"]}, "domains": ["math"]}
    for model, values in (("specialist_math", [1, 1, 1]), ("merged_ties", [1, 1, 1]), ("merged_dare", [0, 0, 0])):
        campaign.write_items(LLAMA, model, "gsm8k", np.array(values, dtype=float))
    evidence = replace(campaign.evidence(), scope=Scope.from_spec(spec))
    assert evidence.best_groups["performance", LLAMA] == ("ties", "dare")
    assert evidence.comparisons["performance", LLAMA]["p"].tolist() == [0.25]
