"""Normalised performance, retention and recovery against answers known beforehand."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergebench.analysis.normalise import (
    domain_scores,
    left_out,
    missing_targets,
    over_bases,
    performance_cells,
    recovery_cells,
    retention_cells,
    summarise,
)
from mergebench.analysis.scope import Scope
from mergebench.analysis.scores import read_scores
from mergebench.errors import MergebenchError
from tests.unit.analysis.synthetic import DOMAINS, FORGETTING, IN_DOMAIN, Campaign, plain_value

LLAMA, GEMMA = "tiny-llama-strong", "tiny-gemma-2-strong"


def as_good_as_the_specialists(base: str, model: str, benchmark: str) -> float:
    """Uneven scores; `merged_ties` equals the right specialist on every benchmark."""
    own = 0.3 + 0.04 * [*IN_DOMAIN, *FORGETTING].index(benchmark)
    right = model in ("merged_ties", f"specialist_{IN_DOMAIN.get(benchmark)}")
    return own if right or benchmark in FORGETTING else 0.3 * own


def test_a_model_equal_to_the_specialists_has_exactly_100(campaign: Campaign) -> None:
    summary = campaign.write(as_good_as_the_specialists).evidence().summary
    for base in (LLAMA, GEMMA, "Overall"):
        assert summary.loc[(base, "ties"), "performance"] == 100.0
        assert summary.loc[(base, "ties"), "recovery"] == pytest.approx(100.0, abs=1e-12)
        assert summary.loc[(base, "ties"), "retention"] == 100.0


def test_the_untouched_base_recovers_nothing_and_retains_everything(campaign: Campaign) -> None:
    summary = campaign.write().evidence().summary
    assert summary.loc[(LLAMA, "untouched_base"), "performance"] == pytest.approx(25.0)
    assert summary.loc[(LLAMA, "untouched_base"), ["recovery", "retention"]].tolist() == [0.0, 100.0]
    assert summary.loc[(LLAMA, "untouched_base"), ["recovery_se", "retention_se"]].tolist() == [0.0, 0.0]


def test_domains_count_the_same_however_many_benchmarks_they_have(campaign: Campaign) -> None:
    def only_safety(base: str, model: str, benchmark: str) -> float:
        """`merged_ties` matches the specialist in safety (four benchmarks of twelve) and scores zero elsewhere."""
        if model == "merged_ties" and benchmark in IN_DOMAIN:
            return 0.8 if IN_DOMAIN[benchmark] == "safety" else 0.0
        return plain_value(base, model, benchmark)

    summary = campaign.write(only_safety).evidence().summary
    assert summary.loc[(LLAMA, "ties"), "performance"] == pytest.approx(20.0)


def test_retention_is_the_mean_over_the_six_forgetting_benchmarks(campaign: Campaign) -> None:
    def forgets_one(base: str, model: str, benchmark: str) -> float:
        return 0.2 if (model, benchmark) == ("merged_ties", "wmt14") else plain_value(base, model, benchmark)

    summary = campaign.write(forgets_one).evidence().summary
    assert summary.loc[(LLAMA, "ties"), "retention"] == pytest.approx(100 * (5 + 0.4) / 6)


@settings(max_examples=8)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(random_numbers: object) -> None:
    scope, scores = _synthetic()
    shuffled = scores.sample(frac=1.0, random_state=random_numbers.randrange(2**32))  # type: ignore[attr-defined]
    for cells in (performance_cells, retention_cells, recovery_cells):
        pd.testing.assert_frame_equal(summarise(cells(shuffled, scope)), summarise(cells(scores, scope)))


@settings(max_examples=15)
@given(st.sets(st.integers(0, 2 * 10 * 18 - 1), max_size=30))
def test_missing_scores_never_change_a_number_only_remove_it(dropped: set[int]) -> None:
    scope, scores = _synthetic()
    kept = scores.drop(index=[row for row in dropped if row < len(scores)])
    for cells in (performance_cells, retention_cells, recovery_cells):
        full, partial = summarise(cells(scores, scope)), summarise(cells(kept, scope))
        assert list(full.index) == list(partial.index)
        there = partial["share"].notna()
        pd.testing.assert_frame_equal(partial[there], full[there])


def test_a_missing_benchmark_leaves_no_number_for_that_model_alone(campaign: Campaign) -> None:
    campaign.write()
    campaign.score_path(LLAMA, "merged_ties", "xstest").unlink()
    summary = campaign.evidence().summary["performance"]
    assert math.isnan(summary[LLAMA, "ties"])
    assert math.isnan(summary["Overall", "ties"])
    assert summary.drop([(LLAMA, "ties"), ("Overall", "ties")]).notna().all()


def test_a_missing_specialist_leaves_no_number_for_its_base(campaign: Campaign) -> None:
    campaign.write()
    campaign.score_path(LLAMA, "specialist_safety", "xstest").unlink()
    summary = campaign.evidence().summary["performance"]
    assert summary[LLAMA].isna().all()
    assert summary[GEMMA].notna().all()


def test_what_is_missing_is_named_as_a_target(campaign: Campaign) -> None:
    campaign.write()
    campaign.score_path(LLAMA, "merged_ties", "xstest").unlink()
    campaign.score_path(GEMMA, "specialist_math", "math").unlink()
    targets = missing_targets(campaign.evidence().performance, ("merged_ties",))
    assert targets == [
        f"scores/{GEMMA}/specialist_math/math.json",
        f"scores/{LLAMA}/merged_ties/xstest.json",
    ]


@pytest.mark.parametrize("almost_nothing", [0.0, 0.0199])
def test_a_benchmark_that_its_specialist_cannot_do_is_left_out(campaign: Campaign, almost_nothing: float) -> None:
    def no_math(base: str, model: str, benchmark: str) -> float:
        if base == LLAMA and benchmark == "math":
            return almost_nothing if model == "specialist_math" else 0.7
        return plain_value(base, model, benchmark)

    evidence = campaign.write(no_math).evidence()
    assert left_out(evidence.performance) == [(LLAMA, "math")]
    assert np.isfinite(evidence.summary.to_numpy()).all()
    assert evidence.summary.loc[(LLAMA, "ties"), "performance"] == pytest.approx(75.0)


def test_a_domain_that_no_specialist_can_do_is_left_out_of_the_mean(campaign: Campaign) -> None:
    def no_coding(base: str, model: str, benchmark: str) -> float:
        return 0.0 if IN_DOMAIN.get(benchmark) == "coding" else plain_value(base, model, benchmark)

    summary = campaign.write(no_coding).evidence().summary
    assert summary.loc[(LLAMA, "ties"), "performance"] == pytest.approx(75.0)


def test_without_any_usable_specialist_there_is_no_number(campaign: Campaign) -> None:
    summary = campaign.write(lambda *_: 0.0).evidence().summary
    assert summary[["performance", "retention", "recovery"]].isna().all(axis=None)


def test_recovery_leaves_out_a_specialist_that_is_not_better_than_its_base(campaign: Campaign) -> None:
    def no_gain(base: str, model: str, benchmark: str) -> float:
        return 0.2 if (model, benchmark) == ("specialist_math", "gsm8k") else plain_value(base, model, benchmark)

    evidence = campaign.write(no_gain).evidence()
    assert left_out(evidence.recovery) == [(LLAMA, "gsm8k"), (GEMMA, "gsm8k")]
    assert left_out(evidence.performance) == []
    assert evidence.summary.loc[(LLAMA, "ties"), "recovery"] == pytest.approx(100 * (0.6 - 0.2) / (0.8 - 0.2))


@pytest.mark.parametrize("measure", ["performance", "recovery", "retention"])
def test_the_standard_error_agrees_with_simulation(measure: str) -> None:
    scope, scores = _synthetic()
    cells = {"performance": performance_cells, "recovery": recovery_cells, "retention": retention_cells}[measure]
    random_numbers = np.random.default_rng(0)
    draws = []
    for _ in range(150):
        noise = random_numbers.normal(0, scores["standard_error"])
        draws.append(over_bases(summarise(cells(scores.assign(value=scores["value"] + noise), scope)))["share"])
    simulated = pd.concat(draws, axis=1).std(axis=1)
    stated = over_bases(summarise(cells(scores, scope)))["standard_error"]
    assert stated["merged_ties"] == pytest.approx(simulated["merged_ties"], rel=0.25)
    assert stated["multitask"] == pytest.approx(simulated["multitask"], rel=0.25)


def test_a_metric_without_standard_error_makes_the_error_unknown_not_smaller(campaign: Campaign) -> None:
    campaign.write()
    campaign.write_score(LLAMA, "merged_ties", "xstest", 0.6, standard_error=None)
    summary = campaign.evidence().summary
    assert summary.loc[(LLAMA, "ties"), "performance"] == pytest.approx(75.0)
    assert math.isnan(summary.loc[(LLAMA, "ties"), "performance_se"])


def test_domain_scores_are_means_of_raw_scores(campaign: Campaign) -> None:
    scores = domain_scores(read_scores(campaign.write().inputs["scores"]), campaign.scope)
    assert list(scores.columns) == DOMAINS
    assert scores.loc[(LLAMA, "specialist_math")].tolist() == pytest.approx([0.2, 0.8, 0.2, 0.2, 0.2])


@pytest.mark.parametrize("key", ["bases", "methods", "domains", "benchmarks", "tuned", "statistics"])
def test_an_incomplete_spec_is_refused_by_key(campaign: Campaign, key: str) -> None:
    spec = campaign.spec
    del spec[key]
    with pytest.raises(MergebenchError, match=f"has no {key}"):
        Scope.from_spec(spec)


def _synthetic() -> tuple[Scope, pd.DataFrame]:
    """Two bases, one method and every score at random well above the floor, each with a standard error of 0.01."""
    benchmarks = {name: {"domain": domain, "role": "in_domain"} for name, domain in IN_DOMAIN.items()}
    benchmarks |= {name: {"domain": "forgetting", "role": "forgetting"} for name in FORGETTING}
    scope = Scope.from_spec(
        {
            "bases": [LLAMA, GEMMA],
            "methods": ["ties", "dare"],
            "domains": DOMAINS,
            "benchmarks": benchmarks,
            "tuned": [],
            "statistics": {},
        }
    )
    random_numbers = np.random.default_rng(1)
    rows = []
    for base in scope.bases:
        for model in scope.models:
            for benchmark in scope.benchmarks:
                own = model == f"specialist_{benchmark.domain}" or (model == "base" and benchmark.role == "forgetting")
                value = random_numbers.uniform(0.7, 0.9) if own else random_numbers.uniform(0.2, 0.5)
                rows.append((base, model, benchmark.name, value, 0.01))
    return scope, pd.DataFrame(rows, columns=["base", "model", "benchmark", "value", "standard_error"])
