"""Reproduced cells against the published tables."""

import pandas as pd
import pytest

from mergebench.analysis.crosscheck import crosscheck
from mergebench.analysis.published import OVERALL, published_names, published_table
from mergebench.analysis.render import to_csv, to_markdown
from mergebench.analysis.run import TABLES
from tests.unit.analysis.synthetic import METHODS, Campaign

SLUGS = {name: slug for slug, name in published_names().items()}


def reproduced(shift: float = 0.0) -> dict[str, pd.DataFrame]:
    """The published tables as if they were ours, all values `shift` points higher."""
    return {measure: published_table(number).rename(index=SLUGS) + shift for measure, number in (("performance", 7), ("retention", 8))}


def errors(value: float) -> dict[str, pd.DataFrame]:
    return {measure: table * 0 + value for measure, table in reproduced().items()}


@pytest.mark.parametrize(
    ("shift", "error", "verdict"),
    [
        (0.0, 1.0, "agreeing"),
        (0.9, 0.01, "agreeing"),
        (-3.0, 2.0, "within noise"),
        (3.0, 1.0, "off"),
        (1.5, float("nan"), "off"),
        (float("nan"), 1.0, "missing"),
    ],
)
def test_verdicts(shift: float, error: float, verdict: str) -> None:
    found = crosscheck(reproduced(shift), errors(error))
    assert set(found["verdict"]) == {verdict}
    assert len(found) == 2 * 9 * 9


def test_the_interval_holds_the_noise_of_both_sides() -> None:
    row = crosscheck(reproduced(2.0), errors(1.0)).iloc[0]
    assert (row["low"], row["high"]) == pytest.approx((2 - 1.959964 * 2**0.5, 2 + 1.959964 * 2**0.5))


def test_a_missing_method_is_missing_and_the_rest_is_compared() -> None:
    here = {measure: table.drop(columns="ties") for measure, table in reproduced().items()}
    found = crosscheck(here, errors(1.0))
    assert set(found[found["method"] == "ties"]["verdict"]) == {"missing"}
    assert set(found[found["method"] != "ties"]["verdict"]) == {"agreeing"}


def test_overall_is_compared_only_where_the_campaign_has_the_papers_bases_and_no_other() -> None:
    here = reproduced()
    assert OVERALL in set(crosscheck(here, errors(1.0))["base"])
    fewer = {measure: table.drop(index="gemma-2-2b") for measure, table in here.items()}
    assert OVERALL not in set(crosscheck(fewer, errors(1.0))["base"])
    more = {measure: pd.concat([table, table.iloc[:1].rename(index={"gemma-2-2b": "mine"})]) for measure, table in here.items()}
    found = crosscheck(more, errors(1.0))
    assert not {OVERALL, "mine"} & set(found["base"])


def test_the_table_has_the_cells_of_the_papers_bases(campaign: Campaign) -> None:
    campaign.bases = ["llama-3.1-8b", "tiny-llama-strong"]
    campaign.methods = METHODS
    table = TABLES["crosscheck"](campaign.write().evidence())
    assert set(table.frame["base"]) == {"llama-3.1-8b"}
    assert len(table.frame) == 2 * 9
    text = to_markdown(table)
    assert "Llama-3.1-8B" in text
    # 75 % of the specialists on every benchmark, where the paper's TIES has 81.4; the delta method's interval
    assert "| 7     | Llama-3.1-8B | TIES            |      81.4 |  75.0 |" in text
    assert "18 cells:" in text


def test_without_a_base_of_the_paper_the_table_says_so(complete: Campaign) -> None:
    table = TABLES["crosscheck"](complete.evidence())
    assert to_csv(table).splitlines() == ["table,base,method,published,here,difference,low,high,verdict"]
    assert "None of the bases of this campaign is one of the paper's." in to_markdown(table)
