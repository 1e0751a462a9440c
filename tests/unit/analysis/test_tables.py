"""The tables as files: layout, missing cells, notes."""

import csv
import io
import re

import pytest

from mergebench.analysis.outputs import TABLES as DECLARED
from mergebench.analysis.render import to_csv, to_markdown
from mergebench.analysis.run import TABLES
from mergebench.analysis.setting_tables import TABLES as SETTING_TABLES
from tests.unit.analysis.synthetic import FORGETTING, IN_DOMAIN, Campaign

LLAMA, GEMMA = "tiny-llama-strong", "tiny-gemma-2-strong"


def rows_of(campaign: Campaign, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(TABLES[name](campaign.evidence())))))


def markdown_of(campaign: Campaign, name: str) -> str:
    return to_markdown(TABLES[name](campaign.evidence()))


def test_every_declared_table_can_be_made() -> None:
    assert [table.stem for table in DECLARED] == list({table.stem: None for table in DECLARED})
    assert {table.stem for table in DECLARED} == set(TABLES)


def test_normalised_performance_has_the_layout_of_table_7_and_three_controls(complete: Campaign) -> None:
    rows = rows_of(complete, "normalised_performance")
    assert list(rows[0]) == ["base", "untouched_base", "best_specialist", "model_soup", "ties", "fisher", "multitask"]
    assert [row["base"] for row in rows] == [LLAMA, GEMMA, "Overall"]
    assert rows[2]["ties"] == "75.0000"


def test_without_multitask_model_its_column_is_absent(campaign: Campaign) -> None:
    campaign.multitask = False
    assert "multitask" not in rows_of(campaign.write(), "normalised_performance")[0]


@pytest.mark.parametrize("name", sorted(TABLES.keys() - SETTING_TABLES.keys()))  # these have values before anything is run
def test_an_empty_campaign_gives_tables_of_missing_cells(campaign: Campaign, name: str) -> None:
    campaign.controls, campaign.seeds = ["random_direction"], {"ties": {"merged_ties": 0, "merged_ties-seed1": 1}}
    for row in rows_of(campaign, name):
        for column, cell in row.items():
            words = ("base", "method", "model", "models", "benchmark", "role", "domain", "measure", "claim", "section", "text", "seed", "n")
            words += ("data", "currency", "memory", "forgetting")  # what a situation or a method is, not what was measured
            words += ("layer", "module", "first", "second")
            of_the_paper = column.startswith("published") or row.get("source") == "published" or row.get("base") == "Paper's tables"
            untuned = row.get("method") == "model_soup" and column in ("validation_seconds", "candidates")
            undecided = (column == "here" and cell == "undecided") or (column == "here_numbers" and "needs" in cell)
            itself = (column, cell) in (("against_soup", "reference"), ("source", "campaign"))
            why = column == "decides" and "is missing" in cell
            assert column in words or cell in ("missing", "n/a") or of_the_paper or untuned or undecided or itself or why, (column, cell)
    told = "Missing until these are made" in markdown_of(campaign, name)
    assert told or name in ("runtime", "fidelity", "efficiency", "claims", "crosscheck", "ranks", "uncertainty")


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_complete_campaign_has_no_missing_cell(complete: Campaign, name: str) -> None:
    assert "missing" not in markdown_of(complete, name).lower()


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_table_begins_its_notes_with_its_rule(complete: Campaign, name: str) -> None:
    assert TABLES[name](complete.evidence()).notes[0].startswith("Rule: ")


def test_the_rule_of_aggregation_is_printed_under_the_table(complete: Campaign) -> None:
    text = markdown_of(complete, "normalised_performance")
    assert "mean over the benchmarks of a domain, then over the domains, then over the bases" in text


def test_a_benchmark_that_does_not_count_is_named_under_the_table(campaign: Campaign) -> None:
    campaign.write()
    campaign.write_score(LLAMA, "specialist_math", "math", 0.0)
    assert f"less than 2 points there: MATH ({LLAMA})." in markdown_of(campaign, "normalised_performance")


def test_specialisation_gives_gains_over_the_base(complete: Campaign) -> None:
    rows = {(row["base"], row["model"]): row for row in rows_of(complete, "specialisation")}
    assert len(rows) == 2 * 6
    assert rows[LLAMA, "specialist_math"]["math"] == "80.0000"
    assert rows[LLAMA, "specialist_math"]["gain_math"] == "60.0000"
    assert rows[LLAMA, "specialist_math"]["gain_coding"] == "0.0000"
    assert "80.0 (+60.0)" in markdown_of(complete, "specialisation")


def test_raw_scores_of_every_model_on_every_benchmark(complete: Campaign) -> None:
    rows = rows_of(complete, "scores")
    assert len(rows) == 2 * (10 * len(IN_DOMAIN) + 5 * len(FORGETTING))
    assert {row["n"] for row in rows} == {"50"}
    assert {row["standard_error"] for row in rows} == {"0.0200"}


def test_specialists_are_not_missing_where_nobody_scores_them(complete: Campaign) -> None:
    line = next(line for line in markdown_of(complete, "scores").splitlines() if "TRIVIAQA" in line)
    assert line.count("n/a") == 5
    assert "missing" not in line


def test_headline_joins_performance_and_cost(complete: Campaign) -> None:
    rows = {(row["base"], row["method"]): row for row in rows_of(complete, "headline")}
    ties = rows[LLAMA, "ties"]
    assert (ties["normalised_performance"], ties["retention"]) == ("75.0000", "100.0000")
    assert (ties["algorithm_seconds"], ties["validation_seconds"]) == ("2.5000", "7.0000")
    assert rows[LLAMA, "multitask"]["algorithm_seconds"] == "n/a"
    assert rows["Overall", "ties"]["algorithm_seconds"] == "n/a"
    assert re.search(r"\| TIES +\| +75\.0 ± \d\.\d \|", markdown_of(complete, "headline"))


def test_one_base_needs_no_overall_row_in_the_headline(campaign: Campaign) -> None:
    campaign.bases = [LLAMA]
    assert {row["base"] for row in rows_of(campaign.write(), "headline")} == {LLAMA}


def test_markdown_columns_line_up(complete: Campaign) -> None:
    lines = [line for line in markdown_of(complete, "headline").splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1


def test_an_added_method_gets_a_column_a_title_and_a_colour(campaign: Campaign) -> None:
    campaign.methods = ["model_soup", "my_new_merge"]
    assert "My new merge" in markdown_of(campaign.write(), "normalised_performance")
