"""Rank correlations of surrogate and benchmark scores: against SciPy, against simulation, and who counts."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mergebench.analysis.fidelity import EVERY_DOMAIN, FEWEST, LOWEST_REFERENCE, correlations, interval, kendall, points, spearman
from mergebench.analysis.render import to_csv, to_markdown
from mergebench.analysis.tables import TABLES
from mergebench.tuning import scorer
from tests.unit.analysis.synthetic import SURROGATES, Campaign, plain_value

LLAMA, GEMMA = "tiny-llama-strong", "tiny-gemma-2-strong"
METHODS = ["task_arithmetic", "regmean", "ties", "dare", "consensus_ta", "dataless_localize_and_stitch"]


@pytest.fixture
def six(campaign: Campaign) -> Campaign:
    """Six tuned methods; on the benchmarks each is better than the one before."""
    campaign.methods = list(METHODS)

    def rising(base: str, model: str, benchmark: str) -> float:
        place = METHODS.index(model.removeprefix("merged_")) if model.startswith("merged_") else None
        return plain_value(base, model, benchmark) if place is None else 0.3 + 0.05 * place

    campaign.write(rising)
    for base in campaign.bases:
        rank_as(campaign, base, range(6))
    return campaign


def rank_as(campaign: Campaign, base: str, order, weights=None) -> None:
    """Give the candidate that each method chose a surrogate score in this order; a worse one was tried before it."""
    for method, place in zip(METHODS, order, strict=True):
        rows = [(n, s, None, v) for n, v in ((0, 0.01), (1, 0.2 + 0.05 * place)) for s in SURROGATES.values()]
        campaign.write_search(base, method, rows)
        campaign.write_merge(base, method, f"{method} 1")


def rows_of(campaign: Campaign) -> dict[tuple[str, str, str], dict[str, str]]:
    lines = [line.split(",") for line in to_csv(TABLES["fidelity"](campaign.evidence())).splitlines()]
    found = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    return {(row["base"], row["models"], row["domain"]): row for row in found}


def points_of(campaign: Campaign) -> pd.DataFrame:
    evidence = campaign.evidence()
    return points(evidence.surrogates, evidence.performance, campaign.scope)


@pytest.mark.parametrize("seed", range(20))
def test_correlations_are_scipys_ties_included(seed):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(FEWEST, 40))
    x = generator.integers(0, 6, n) / 5
    y = np.round(x + generator.normal(0, 0.5, n), 1)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize(("measure", "kind", "rho"), [(spearman, "spearman", 0.6), (kendall, "kendall", 0.6), (spearman, "spearman", 0.0)])
def test_intervals_hold_the_truth_in_about_95_of_100(measure, kind, rho):
    """Bivariate normal samples, for which the rank correlations of the population are known."""
    truth = 6 / np.pi * np.arcsin(rho / 2) if kind == "spearman" else 2 / np.pi * np.arcsin(rho)
    generator = np.random.default_rng(0)
    held = []
    for _ in range(600):
        x = generator.normal(size=16)
        y = rho * x + np.sqrt(1 - rho**2) * generator.normal(size=16)
        _, low, high = interval([measure(x, y)], [16], kind)
        held.append(low <= truth <= high)
    assert 0.92 <= np.mean(held) <= 0.985


def test_groups_together_narrow_the_interval_and_lie_between():
    one, low, high = interval([0.5], [10], "spearman")
    both, lower, higher = interval([0.5, 0.5], [10, 10], "spearman")
    assert one == 0.5
    assert both == pytest.approx(0.5)
    assert low < lower < both < higher < high
    mixed, _, _ = interval([0.2, 0.8], [10, 10], "kendall")
    assert 0.2 < mixed < 0.8


@pytest.mark.parametrize("kind", ["spearman", "kendall"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_perfect_correlation_of_few_models_is_no_certainty(kind, sign):
    value, low, high = interval([sign], [6], kind)
    assert value == sign
    inner = low if sign > 0 else high
    assert abs(inner) < 0.9
    assert -1 <= low < high <= 1


def test_a_surrogate_that_ranks_as_the_benchmarks_do_has_1_and_the_opposite_minus_1(six):
    rank_as(six, GEMMA, reversed(range(6)))
    rows = rows_of(six)
    for domain in (*SURROGATES, EVERY_DOMAIN):
        assert rows[LLAMA, "merged", domain]["spearman"] == rows[LLAMA, "merged", domain]["kendall"] == "1.0000"
        assert rows[GEMMA, "merged", domain]["spearman"] == rows[GEMMA, "merged", domain]["kendall"] == "-1.0000"
        assert rows["Overall", "merged", domain]["spearman"] == "0.0000", "bases count the same, whatever their sign"
        assert rows["Overall", "merged", domain]["n"] == "12"


def test_only_the_candidate_with_the_merged_models_weights_counts(six):
    before = points_of(six)
    for base in six.bases:
        six.write_merge(base, "ties", "ties 0")  # the worse candidate was merged
    after = points_of(six)
    ties = after[(after["base"] == LLAMA) & (after["model"] == "merged_ties") & (after["domain"] == "math")]
    assert ties["surrogate"].item() == pytest.approx(0.01 / 0.7)
    unchanged = before["model"] != "merged_ties"
    assert before[unchanged].reset_index(drop=True).equals(after[after["model"] != "merged_ties"].reset_index(drop=True))


def test_weights_that_another_methods_search_scored_count_and_twins_count_once(six):
    before = points_of(six)
    for base in six.bases:
        six.write_merge(base, "regmean", "task_arithmetic 0")  # was tried there, and not chosen
        six.write_merge(base, "dare", "ties 1")  # merged twice
    found = points_of(six)
    chosen = found[(found["base"] == LLAMA) & (found["domain"] == "math")].set_index("model")
    assert chosen.loc["merged_regmean", "surrogate"] == pytest.approx(0.01 / 0.7)
    assert ("merged_ties" in chosen.index) + ("merged_dare" in chosen.index) == 1
    assert len(found) == len(before) - len(six.bases) * (len(SURROGATES) + 1)


def test_a_score_on_a_block_of_items_is_no_score_of_the_surrogate(six):
    six.write_search(LLAMA, "ties", [(1, s, block, 0.4) for s in SURROGATES.values() for block in (0, 1)])
    found = points_of(six)
    assert "merged_ties" not in set(found[found["base"] == LLAMA]["model"])
    assert "TIES (tiny-llama-strong)" in to_markdown(TABLES["fidelity"](six.evidence()))


def test_a_model_that_lacks_a_benchmark_of_a_domain_is_left_out_there_only(six):
    six.score_path(LLAMA, "merged_ties", "gsm8k").unlink()
    found = points_of(six)
    mine = set(found[(found["base"] == LLAMA) & (found["model"] == "merged_ties")]["domain"])
    assert mine == {*SURROGATES} - {"math"}
    rows = rows_of(six)
    assert (rows[LLAMA, "merged", "math"]["n"], rows[LLAMA, "merged", "coding"]["n"]) == ("5", "6")


def test_too_few_models_are_missing_before_the_end_and_not_applicable_after_it(campaign):
    campaign.write()  # two tuned methods
    done = rows_of(campaign)[LLAMA, "merged", "math"]
    assert (done["n"], done["spearman"], done["kendall_low"]) == ("2", "n/a", "n/a")
    campaign.score_path(LLAMA, "merged_ties", "gsm8k").unlink()
    assert rows_of(campaign)[LLAMA, "merged", "math"]["spearman"] == "missing"


def test_a_domain_of_which_no_benchmark_counts_is_named_and_left_out_of_the_mean(six):
    before = points_of(six).query("base == @LLAMA and domain == @EVERY_DOMAIN").set_index("model")
    for benchmark in ("gsm8k", "math"):
        six.write_score(LLAMA, "specialist_math", benchmark, 0.01)
    rows = rows_of(six)
    assert {rows[LLAMA, "merged", "math"][column] for column in ("n", "spearman", "kendall_high")} == {"n/a"}
    assert rows[LLAMA, "merged", EVERY_DOMAIN]["n"] == rows[LLAMA, "merged", "coding"]["n"] == "6"
    after = points_of(six).query("base == @LLAMA and domain == @EVERY_DOMAIN").set_index("model")
    assert (after["benchmark"] != before["benchmark"]).any()
    text = to_markdown(TABLES["fidelity"](six.evidence()))
    assert "less than 2 points there: GSM8K (tiny-llama-strong), MATH (tiny-llama-strong)." in text
    assert "Not scored" not in text


def test_equal_scores_have_no_correlation(six):
    rank_as(six, LLAMA, [0] * 6)
    rows = rows_of(six)
    assert rows[LLAMA, "merged", "math"]["spearman"] == "n/a"
    assert rows["Overall", "merged", "math"]["spearman"] == "n/a", "a base that says nothing is not left out silently"


@pytest.mark.filterwarnings("error")
def test_scores_that_only_rounding_tells_apart_are_equal(six):
    found = points_of(six)
    noise = np.random.default_rng(0).choice([-1e-15, 0.0, 1e-15], len(found))
    rows = correlations(found.assign(surrogate=0.3 + noise), six.scope, "Overall")
    assert rows[["spearman", "kendall"]].isna().all(axis=None)


def test_specialists_count_with_their_own_surrogate_scores(six):
    found = points_of(six)
    mine = found[(found["base"] == LLAMA) & (found["domain"] == "math")].set_index("model")
    assert mine.loc["specialist_math", ["surrogate", "benchmark"]].tolist() == [1.0, 1.0]
    assert mine.loc["specialist_coding", "surrogate"] == pytest.approx(0.1 / 0.7)
    assert rows_of(six)[LLAMA, "every", "math"]["n"] == "11"


def test_scores_are_divided_as_in_tuning():
    assert LOWEST_REFERENCE == scorer.LOWEST_REFERENCE


def test_a_specialist_that_fails_its_surrogate_divides_nothing(six):
    six.write_score(LLAMA, "specialist_math", "mmlu_stem", 0.0)
    found = points_of(six)
    ties = found[(found["base"] == LLAMA) & (found["model"] == "merged_ties") & (found["domain"] == "math")]
    assert ties["surrogate"].item() == pytest.approx(0.2 + 0.05 * METHODS.index("ties"))
    for path in six.root.glob(f"scores/{LLAMA}/specialist_math/mmlu_stem.json"):
        path.unlink()
    assert "math" not in set(points_of(six).query("base == @LLAMA")["domain"]), "without a reference there is no normalised score"
