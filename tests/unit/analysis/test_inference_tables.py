"""Intervals, marks, ranks and claims as tables, from items on disk."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest

from mergebench.analysis.inference_tables import own_results
from mergebench.analysis.render import to_csv, to_markdown
from mergebench.analysis.run import TABLES
from mergebench.analysis.tables import Evidence
from tests.unit.analysis.synthetic import FORGETTING, IN_DOMAIN, Campaign

LLAMA, GEMMA = "tiny-llama-strong", "tiny-gemma-2-strong"
CHANCE = {"base": 0.2, "merged_model_soup": 0.55, "merged_ties": 0.57, "merged_fisher": 0.3}


@pytest.fixture(scope="module")
def itemised(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """Two bases with items: Model Soup and TIES about as good as each other, Fisher far behind."""
    campaign = Campaign(tmp_path_factory.mktemp("itemised"))
    campaign.write()
    generator = np.random.default_rng(0)
    for base in campaign.bases:
        for model in campaign.scope.models:
            for benchmark in IN_DOMAIN if model.startswith("specialist") else (*IN_DOMAIN, *FORGETTING):
                own = model == f"specialist_{IN_DOMAIN.get(benchmark)}"
                chance = 0.8 if own else 0.5 if benchmark in FORGETTING else CHANCE.get(model, 0.5)
                campaign.write_items(base, model, benchmark, generator.random(30) < chance)
    return campaign


@pytest.fixture(scope="module")
def evidence(itemised: Campaign) -> Evidence:
    """The resampled scores of `itemised`, computed once."""
    return itemised.evidence()


def rows_of(evidence: Evidence, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(TABLES[name](evidence)))))


def markdown_of(evidence: Evidence, name: str) -> str:
    return to_markdown(TABLES[name](evidence))


def performance_of(evidence: Evidence) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of the table of uncertainty on performance over all domains, by base and method."""
    rows = rows_of(evidence, "uncertainty")
    return {(row["base"], row["method"]): row for row in rows if (row["measure"], row["domain"]) == ("performance", "all")}


def test_intervals_hold_their_values(evidence: Evidence) -> None:
    rows = [row for row in rows_of(evidence, "uncertainty") if row["method"] != "untouched_base"]
    assert {row["measure"] for row in rows} == {"performance", "retention", "recovery"}
    for row in rows:
        assert float(row["low"]) < float(row["value"]) < float(row["high"]), row
        assert float(row["standard_error"]) > 0


def test_every_base_method_and_domain_has_its_row(evidence: Evidence) -> None:
    rows = rows_of(evidence, "uncertainty")
    compared = len(evidence.scope.compared)
    assert len(rows) == 2 * (2 * 6 + 1) * compared + (2 + 1) * compared
    values = {(row["base"], row["method"]): row["normalised_performance"] for row in rows_of(evidence, "headline")}
    for row in rows:
        if (row["measure"], row["domain"]) == ("performance", "all"):
            assert row["value"] == values[row["base"], row["method"]]


def test_the_best_and_what_is_not_separable_from_it_are_marked(evidence: Evidence) -> None:
    rows = {
        (row["base"], row["method"]): row
        for row in rows_of(evidence, "uncertainty")
        if (row["measure"], row["domain"]) == ("performance", "all")
    }
    for base in (LLAMA, GEMMA, "Overall"):
        assert {rows[base, "model_soup"]["best_group"], rows[base, "ties"]["best_group"]} == {"best", "not separable"}
        assert rows[base, "fisher"]["best_group"] == "no"
        assert float(rows[base, "fisher"]["p_holm"]) < 0.001
        assert rows[base, "multitask"]["best_group"] == "n/a"
    line = next(line for line in markdown_of(evidence, "normalised_performance").splitlines() if line.startswith("| Overall"))
    assert [cell.endswith("†") for cell in line.replace(" |", "|").split("|")[1:-1]] == [False] * 3 + [True, True, False, False]


@pytest.mark.parametrize(("table", "measure"), [("normalised_performance", "performance"), ("forgetting", "retention")])
def test_daggers_of_the_papers_tables_are_those_of_the_table_of_uncertainty(evidence: Evidence, table: str, measure: str) -> None:
    expected = sum(len(group) for (which, _), group in evidence.best_groups.items() if which == measure)
    text = to_markdown(TABLES[table](evidence))
    assert text.count(" † ") == expected + 1  # and the note
    assert "Not separable from the best method" in text


def test_csv_of_the_papers_tables_has_plain_numbers(evidence: Evidence) -> None:
    for row in rows_of(evidence, "normalised_performance"):
        assert all(float(value) for name, value in row.items() if name != "base")


def test_the_headline_says_which_methods_are_in_the_best_group(evidence: Evidence) -> None:
    groups = {row["method"]: row["best_group"] for row in rows_of(evidence, "headline") if row["base"] == "Overall"}
    assert groups == {"untouched_base": "n/a", "model_soup": "yes", "ties": "yes", "fisher": "no", "multitask": "n/a"}


def test_without_items_nothing_is_marked_and_the_files_are_named(complete: Campaign) -> None:
    text = markdown_of(complete.evidence(), "uncertainty")
    assert "No interval (n/a) where items are not there: `scores/" in text
    assert "†" not in markdown_of(complete.evidence(), "normalised_performance")
    assert {row["best_group"] for row in rows_of(complete.evidence(), "headline")} == {"n/a"}


def test_items_that_are_not_there_leave_their_method_without_interval_or_rank_of_its_own(itemised: Campaign, tmp_path: Path) -> None:
    partial = Campaign(tmp_path / "partial")
    shutil.copytree(itemised.root, partial.root)
    partial.score_path(LLAMA, "merged_ties", "gsm8k").with_suffix(".items.parquet").unlink()
    rows = {
        (row["base"], row["method"]): row
        for row in rows_of(partial.evidence(), "uncertainty")
        if (row["measure"], row["domain"]) == ("performance", "all")
    }
    assert (rows[LLAMA, "ties"]["low"], rows[LLAMA, "ties"]["best_group"]) == ("n/a", "n/a")
    assert float(rows[LLAMA, "ties"]["value"]) > 0
    assert rows[GEMMA, "ties"]["best_group"] != "n/a"
    assert rows["Overall", "ties"]["low"] == "n/a"


def test_the_best_single_specialist_stands_among_the_controls(campaign: Campaign) -> None:
    """All of its own domain, a quarter of the others: (1 + 4 / 4) / 5."""
    campaign.write()
    rows = {row["base"]: row for row in rows_of(campaign.evidence(), "normalised_performance")}
    assert rows[LLAMA]["best_specialist"] == "40.0000"
    assert rows["Overall"]["best_specialist"] == "40.0000"
    campaign.write_score(LLAMA, "specialist_coding", "gsm8k", 0.5)
    assert f"Coding specialist ({LLAMA})" in markdown_of(campaign.evidence(), "normalised_performance")
    campaign.score_path(LLAMA, "specialist_coding", "gsm8k").unlink()
    assert {row["base"]: row["best_specialist"] for row in rows_of(campaign.evidence(), "normalised_performance")}[LLAMA] == "missing"


def test_ranks_here_stand_beside_those_of_the_paper(complete: Campaign) -> None:
    rows = {row["method"]: row for row in rows_of(complete.evidence(), "ranks")}
    assert rows["ties"]["published_performance"] == "4.8750"
    assert rows["ties"]["performance"] == "2.0000"
    assert rows["regmean"]["performance"] == "n/a"
    assert "F 4.55 against 2.11 at 5 %, significant" in markdown_of(complete.evidence(), "ranks")


def test_claims_are_judged_on_the_campaign_as_on_the_paper(complete: Campaign) -> None:
    rows = {row["claim"]: row for row in rows_of(complete.evidence(), "claims")}
    assert len(rows) == 19
    assert (rows["C7"]["published"], rows["C7"]["here"]) == ("supported", "undecided")
    assert rows["C11"]["here_numbers"].startswith("0 of 6 merged models retain more")
    assert (rows["C11"]["published"], rows["C11"]["here"]) == ("undecided", "refuted")


def test_claims_about_size_take_the_bases_from_the_campaign(campaign: Campaign) -> None:
    facts = {"family": "llama-3", "instruction_tuned": False}
    campaign.lineage = {LLAMA: {**facts, "size": "small", "parameters": 1}, GEMMA: {**facts, "size": "large", "parameters": 2}}

    def grows(base: str, model: str, benchmark: str) -> float:
        return 0.5 if benchmark in FORGETTING else 0.8 if model.startswith("specialist") else 0.6 + 0.1 * (base == GEMMA)

    rows = {row["claim"]: row for row in rows_of(campaign.write(grows).evidence(), "claims")}
    assert (rows["C1"]["here"], rows["C1"]["here_numbers"]) == ("supported", "3 of 3 pairs rise: llama-3 3/3")
    assert rows["C3"]["here"] == "refuted"


def test_memory_of_training_counts_only_where_it_ran_without_a_gpu(campaign: Campaign) -> None:
    campaign.write()
    path = campaign.write_cost(f"train/{LLAMA}/specialist_math", {}, peak=900, model="specialist_math")
    assert own_results(campaign.evidence()).training_memory == 900
    path.write_text(path.read_text().replace("{", '{"gpu_peak_bytes": 5, "run": {"gpus_visible": 1},', 1))
    assert np.isnan(own_results(campaign.evidence()).training_memory)
