"""Several seeds of one method: means in the tables, their spread in errors and intervals; controls that are no methods."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from scipy import stats

from mergebench.analysis import tables
from mergebench.analysis.costs import method_costs, read_costs, read_searches
from mergebench.analysis.fidelity import correlations
from mergebench.analysis.figures import draw
from mergebench.analysis.labels import model_title
from mergebench.analysis.normalise import missing_targets
from mergebench.analysis.render import to_csv, to_markdown
from mergebench.analysis.run import TABLES
from mergebench.analysis.seeds import by_seed, mean_draws, spread
from mergebench.analysis.tables import OVERALL, Evidence
from mergebench.analysis.uncertainty import intervals
from tests.unit.analysis.synthetic import FORGETTING, IN_DOMAIN, Campaign, cut_off, plain_value

LLAMA, GEMMA = "tiny-llama-strong", "tiny-gemma-2-strong"
SEEDS = {"merged_ties": 4, "merged_ties-seed5": 5, "merged_ties-seed6": 6}
VALUES = {"merged_ties": 0.6, "merged_ties-seed5": 0.5, "merged_ties-seed6": 0.4, "merged_random_direction": 0.3}


def value_of(base: str, model: str, benchmark: str) -> float:
    return VALUES.get(model, plain_value(base, model, benchmark)) if benchmark in IN_DOMAIN else plain_value(base, model, benchmark)


def seeded(campaign: Campaign) -> Campaign:
    """TIES with three seeds, whose normalised performance is 75, 62.5 and 50; a random direction with 37.5."""
    campaign.controls = ["random_direction"]
    campaign.seeds = {"ties": SEEDS, "random_direction": {"merged_random_direction": 4}}
    return campaign.write(value_of)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return seeded(Campaign(tmp_path_factory.mktemp("three")))


@pytest.fixture(scope="module")
def evidence(three: Campaign) -> Evidence:
    return three.evidence()


def rows_of(evidence: Evidence, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(TABLES[name](evidence)))))


def test_a_method_s_number_is_the_mean_over_its_seeds(evidence: Evidence) -> None:
    assert evidence.summary.loc[(LLAMA, "ties"), "performance"] == pytest.approx(62.5)
    assert {row["base"]: row["ties"] for row in rows_of(evidence, "normalised_performance")}[OVERALL] == "62.5000"


def test_the_spread_is_in_the_standard_error(three: Campaign, evidence: Evidence) -> None:
    """Seeds that are 12.5 apart have a standard deviation of 12.5, so their mean has 12.5 / sqrt(3), on one base and, of two, / sqrt(2)."""
    one = Evidence(three.scope.apart(), *(getattr(evidence, n) for n in ("scores", "costs", "jobs", "losses", "surrogates", "winners")))
    of_items = np.sqrt((one.summary.loc[LLAMA, "performance_se"][["ties", "ties-seed5", "ties-seed6"]] ** 2).mean())
    assert evidence.summary.loc[(LLAMA, "ties"), "performance_se"] == pytest.approx(np.hypot(of_items, 12.5 / 3**0.5), rel=1e-3)
    both = evidence.summary.loc[(OVERALL, "ties"), "performance_se"]
    assert both == pytest.approx(evidence.summary.loc[(LLAMA, "ties"), "performance_se"] / 2**0.5)
    unseeded = ["performance_se", "retention_se", "recovery_se"]
    assert (evidence.summary.loc[(LLAMA, "fisher"), unseeded] == one.summary.loc[(LLAMA, "fisher"), unseeded]).all()


def test_the_seeds_table_has_each_of_them(evidence: Evidence) -> None:
    rows = [r for r in rows_of(evidence, "seeds") if (r["base"], r["method"], r["measure"]) == (LLAMA, "ties", "performance")]
    assert [(r["seed"], r["value"]) for r in rows] == [("4", "75.0000"), ("5", "62.5000"), ("6", "50.0000")]
    assert {(r["n"], r["mean"], r["standard_deviation"]) for r in rows} == {("3", "62.5000", "12.5000")}
    text = to_markdown(TABLES["seeds"](evidence))
    assert "62.5 ± 12.5" in text
    assert "75.0, 62.5, 50.0" in text


def test_one_seed_has_no_spread(evidence: Evidence) -> None:
    rows = [r for r in rows_of(evidence, "seeds") if r["method"] == "random_direction"]
    assert {(r["n"], r["standard_deviation"]) for r in rows} == {("1", "n/a")}
    assert {r["mean"] for r in rows if r["measure"] == "performance"} == {"37.5000"}


def test_a_missing_seed_makes_the_mean_missing_and_is_named(campaign: Campaign) -> None:
    seeded(campaign).score_path(LLAMA, "merged_ties-seed5", "gsm8k").unlink()
    found = campaign.evidence()
    assert np.isnan(found.summary.loc[(LLAMA, "ties"), "performance"])
    assert missing_targets(found.performance, ("merged_ties",)) == [f"scores/{LLAMA}/merged_ties-seed5/gsm8k.json"]
    for table in ("normalised_performance", "seeds", "scores"):
        assert f"`scores/{LLAMA}/merged_ties-seed5/gsm8k.json`" in to_markdown(TABLES[table](found))
    assert "75.0, missing, 50.0" in to_markdown(TABLES["seeds"](found))
    assert found.summary.loc[(GEMMA, "ties"), "performance"] == pytest.approx(62.5)


def test_raw_scores_keep_every_seed(evidence: Evidence) -> None:
    rows = rows_of(evidence, "scores")
    assert {row["value"] for row in rows if row["model"] == "merged_ties" and row["benchmark"] == "gsm8k"} == {"0.6000"}
    assert {row["value"] for row in rows if row["model"] == "merged_ties-seed6" and row["benchmark"] == "gsm8k"} == {"0.4000"}
    assert model_title("merged_ties-seed6") == "TIES, seed 6"


def test_fidelity_compares_the_first_seed_s_candidate_with_its_own_model(monkeypatch: pytest.MonkeyPatch, evidence: Evidence) -> None:
    seen = []
    monkeypatch.setattr(tables, "correlations", lambda found, *rest: seen.append(found) or correlations(found, *rest))
    tables.fidelity(evidence)
    mine = seen[0][(seen[0]["model"] == "merged_ties") & (seen[0]["base"] == LLAMA)]
    assert len(mine)
    assert mine["benchmark"].tolist() == pytest.approx([0.75] * len(mine))


def test_the_order_of_a_map_s_keys_does_not_choose_the_first_seed(campaign: Campaign) -> None:
    campaign.seeds = {"ties": {"merged_ties-seed10": 10, "merged_ties-seed9": 9, "merged_ties": 8}}
    assert campaign.scope.several == {"merged_ties": ("merged_ties", "merged_ties-seed9", "merged_ties-seed10")}


def draws_of(campaign: Campaign, spread_of_seeds: float, resamples: int = 4000) -> dict[tuple[str, str, str], np.ndarray]:
    """Resampled scores without any noise of items: 0.5 for the first seed, and so far apart for the others."""
    offsets = dict(zip(SEEDS, (0.0, spread_of_seeds, 2 * spread_of_seeds), strict=True))
    return {
        (base, model, benchmark): np.full(resamples, value_of(base, model, benchmark) if model not in SEEDS else 0.5 + offsets[model])
        for base in campaign.bases
        for model in campaign.scope.scored
        for benchmark in (*IN_DOMAIN, *FORGETTING)
    }


def test_draws_vary_as_the_mean_of_so_few_seeds_does(three: Campaign) -> None:
    """Without noise of items s / sqrt(n) is left, by Student's factor; the same on all benchmarks of a base, another on the next base."""
    found = mean_draws(draws_of(three, 0.1), three.scope)
    drawn = found[LLAMA, "merged_ties", "gsm8k"]
    assert drawn.mean() == pytest.approx(0.6, abs=0.01)
    assert drawn.std() == pytest.approx(stats.t.ppf(0.975, 2) / stats.norm.ppf(0.975) * 0.1 / 3**0.5, rel=0.05)
    np.testing.assert_array_equal(drawn, found[LLAMA, "merged_ties", "mmlu"])
    assert abs(np.corrcoef(drawn, found[GEMMA, "merged_ties", "gsm8k"])[0, 1]) < 0.06
    assert not {model for _, model, _ in found} & set(three.scope.other_seeds)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_an_interval_covers_the_true_mean_of_seeds_in_95_percent_of_the_cases(campaign: Campaign, seeds: int) -> None:
    campaign.seeds = {"ties": {f"merged_ties{f'-seed{k}' if k else ''}": k for k in range(seeds)}}
    generator, scope, hits = np.random.default_rng(seeds), campaign.scope, 0
    for _ in range(600):
        values = generator.normal(0.5, 0.1, seeds)
        known = {(LLAMA, model, "gsm8k"): np.full(500, value) for model, value in zip(campaign.seeds["ties"], values, strict=True)}
        low, high = np.percentile(mean_draws(known, scope)[LLAMA, "merged_ties", "gsm8k"], [2.5, 97.5])
        hits += low <= 0.5 <= high
    assert hits / 600 == pytest.approx(0.95, abs=0.025)


def test_equal_seeds_add_no_noise(three: Campaign) -> None:
    found = mean_draws(draws_of(three, 0.0), three.scope)
    np.testing.assert_allclose(found[LLAMA, "merged_ties", "gsm8k"], 0.5, rtol=1e-12)


def test_a_seed_without_items_leaves_no_interval(three: Campaign) -> None:
    known = draws_of(three, 0.1)
    del known[LLAMA, "merged_ties-seed6", "gsm8k"]
    found = mean_draws(known, three.scope)
    assert (LLAMA, "merged_ties", "gsm8k") not in found
    assert (GEMMA, "merged_ties", "gsm8k") in found


def test_one_seed_changes_no_draw(campaign: Campaign) -> None:
    campaign.seeds = {"ties": {"merged_ties": 4}}
    known = {(LLAMA, "merged_ties", "gsm8k"): np.arange(5.0)}
    assert mean_draws(known, campaign.scope) == known


@pytest.mark.parametrize(("apart", "group"), [(0.0, ("ties",)), (0.2, ("ties", "fisher"))])
def test_intervals_and_paired_tests_hold_the_spread_of_seeds(campaign: Campaign, apart: float, group: tuple[str, ...]) -> None:
    """TIES is better than Fisher on every item by 0.1: that is so if its seeds agree, and proves nothing if they are 0.2 apart."""
    campaign.bases, campaign.seeds, campaign.methods = [LLAMA], {"ties": SEEDS}, ["ties", "fisher"]
    items = np.random.default_rng(0).random(300)
    shifts = {"merged_fisher": 0.1, **{model: 0.2 + apart * (seed - 5) for model, seed in SEEDS.items()}}
    for model in campaign.scope.scored:
        for benchmark in IN_DOMAIN:
            campaign.write_items(LLAMA, model, benchmark, items / 2 + shifts.get(model, 0.4))
    found = campaign.evidence()
    row = intervals(found.draws["performance"]).set_index(["base", "model", "domain"]).loc[(LLAMA, "merged_ties", "all")]
    assert row["low"] < row["value"] < row["high"]
    assert bool(row["high"] - row["low"] > 20) is (apart > 0)
    assert found.best_groups["performance", LLAMA] == group


def test_what_is_drawn_does_not_depend_on_the_order_of_scores(three: Campaign) -> None:
    known = draws_of(three, 0.1, 50)
    one, other = mean_draws(known, three.scope), mean_draws(dict(reversed(known.items())), three.scope)
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_by_seed_and_spread_agree_with_plain_numpy(three: Campaign, evidence: Evidence) -> None:
    each = by_seed(evidence.scores, three.scope)
    values = each.sort_index().loc[(OVERALL, "ties"), "performance"].to_numpy()
    np.testing.assert_allclose(values, [75.0, 62.5, 50.0])
    found = spread(each).loc[(OVERALL, "ties"), "performance"]
    assert (found["mean"], found["deviation"], found["n"]) == (pytest.approx(values.mean()), pytest.approx(values.std(ddof=1)), 3)


def test_further_seeds_and_controls_are_not_charged(three: Campaign) -> None:
    before = method_costs(read_costs(three.inputs["costs"]), read_searches(three.inputs["searches"]), three.scope)
    for name in ("ties-seed5", "random_direction"):
        three.write_cost(f"merge/{LLAMA}/{name}", {"algorithm": 99.0}, method=name.partition("-")[0], model=f"merged_{name}", peak=10**6)
    after = method_costs(read_costs(three.inputs["costs"]), read_searches(three.inputs["searches"]), three.scope)
    assert after.equals(before)
    for row in rows_of(three.evidence(), "headline"):
        if row["method"] == "random_direction":
            assert {row[c] for c in ("algorithm_seconds", "validation_seconds", "peak_memory_mib", "best_group")} == {"n/a"}


def test_a_control_is_compared_and_not_ranked(evidence: Evidence) -> None:
    assert list(rows_of(evidence, "normalised_performance")[0])[:4] == ["base", "untouched_base", "best_specialist", "random_direction"]
    assert "random_direction" in rows_of(evidence, "forgetting")[0]
    uncertain = [row for row in rows_of(evidence, "uncertainty") if row["method"] == "random_direction"]
    assert uncertain
    assert {row["best_group"] for row in uncertain} == {"n/a"}
    for table in ("ranks", "crosscheck", "runtime", "tuning"):
        assert "random_direction" not in {row.get("method") for row in rows_of(evidence, table)}
    assert "Random direction: every tensor" in to_markdown(TABLES["headline"](evidence))


@pytest.mark.parametrize("name", ["multitask_performance", "performance_forgetting"])
def test_figures_show_the_control_beside_the_methods(evidence: Evidence, name: str) -> None:
    figure = draw(name, evidence)
    assert "Random direction" in [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert not cut_off(figure)
