"""The tables of decisions on a campaign whose answers are known, and on incomplete ones."""

from pathlib import Path

import pandas as pd
import pytest

from mergebench.analysis.comparisons import compare
from mergebench.analysis.difference_table import differences
from mergebench.analysis.disagreement import between_methods
from mergebench.analysis.guideline_table import guideline
from mergebench.analysis.pareto_table import pareto
from mergebench.analysis.render import to_csv, to_markdown
from mergebench.analysis.tables import Evidence
from tests.unit.analysis.decisive import BASE, HOURS, decisive
from tests.unit.analysis.synthetic import Campaign

SOUP, TA = "model_soup", "task_arithmetic"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return decisive(tmp_path_factory.mktemp("decisive")).evidence()


@pytest.fixture(scope="module")
def frontiers(known: Evidence) -> pd.DataFrame:
    frame = pareto(known).frame
    return frame[frame["source"] == "campaign"].set_index("method")


def test_the_frontier_with_and_without_the_price(frontiers: pd.DataFrame) -> None:
    """TIES is best in performance (with Task Arithmetic) and retention; DARE is as good as the soup, and cheaper."""
    two, three = frontiers["two_way"].to_dict(), frontiers["three_way"].to_dict()
    assert two == {SOUP: "no", TA: "no", "ties": "yes", "fisher": "no", "dare": "no"}
    assert three == {SOUP: "no", TA: "yes", "ties": "yes", "fisher": "no", "dare": "yes"}
    assert frontiers.loc[SOUP, "three_way_dominated_by"] == "dare"
    assert frontiers.loc["fisher", "three_way_dominated_by"] == "dare"


def test_shares_of_the_draws_are_those_of_paired_draws(frontiers: pd.DataFrame) -> None:
    """TIES is right wherever others are, so no draw can turn them round; equals stay equal in every draw."""
    assert frontiers.loc["ties", ["two_way_share", "three_way_share"]].tolist() == [1.0, 1.0]
    assert frontiers.loc["dare", "three_way_share"] == 1.0
    assert frontiers.loc["fisher", "two_way_share"] == 0.0


def test_published_rows_have_the_papers_frontier_and_no_price(known: Evidence) -> None:
    frame = pareto(known).frame
    published = frame[(frame["source"] == "published") & (frame["base"] == "Overall")]
    assert set(published[published["two_way"] == "yes"]["method"]) == {"ties", "dataless_localize_and_stitch", "localize_and_stitch"}
    assert set(published["three_way"]) == {"n/a"}
    assert frame[frame["source"] == "published"]["base"].nunique() == 9


def test_differences_are_those_of_the_paired_tests(known: Evidence) -> None:
    frame = differences(known).frame
    mine = frame[(frame["measure"] == "performance") & (frame["base"] == BASE)]
    counts = between_methods(known.resamples.disagreements, known.performance, known.scope, BASE)
    expected = compare(known.method_draws("performance", BASE), counts)
    pd.testing.assert_frame_equal(mine[expected.columns].reset_index(drop=True), expected)
    pair = mine[(mine["better"] == "ties") & (mine["worse"] == SOUP)]
    assert pair["difference"].item() == pytest.approx(37.5)


def rows_for(frame: pd.DataFrame, data: str, **where: str) -> pd.DataFrame:
    mine = frame[(frame["base"] == BASE) & frame["data"].map(lambda cell: data in cell.split("; "))]
    for column, wanted in where.items():
        mine = mine[mine[column].map(lambda cell, wanted=wanted: wanted in cell.split(", "))]
    return mine


@pytest.mark.parametrize(
    ("data", "memory", "forgetting", "recommended", "cheapest"),
    [
        ("nothing", "any", "any", {SOUP}, SOUP),
        ("validation", "any", "any", {"ties", TA}, TA),
        ("validation", "any", "at most 2 %", {"ties"}, "ties"),
        ("validation", "24 GiB", "at most 2 %", {SOUP, "dare"}, "dare"),
        ("validation", "24 GiB", "any", {TA}, TA),
        ("validation", "8 GiB", "any", {SOUP, "dare"}, "dare"),
        ("training and validation", "any", "any", {"ties", TA}, TA),
    ],
)
def test_recommended_is_who_is_not_worse_than_the_best_possible(known: Evidence, data, memory, forgetting, recommended, cheapest) -> None:
    """Peaks: 8 GiB for every GPU-hour."""
    assert HOURS[TA] * 8 == 16
    [row] = rows_for(guideline(known).frame, data, memory=memory, forgetting=forgetting).to_dict("records")
    assert set(row["recommended"].split("; ")) == recommended
    assert row["cheapest"] == cheapest


def test_every_situation_has_one_row(known: Evidence) -> None:
    frame = guideline(known).frame
    for data in ("nothing", "validation", "training", "training and validation"):
        for memory in ("any", "8 GiB"):
            for forgetting in ("any", "at most 5 %", "at most 2 %"):
                assert len(rows_for(frame, data, memory=memory, forgetting=forgetting)) == 1


def test_what_decides_is_said(known: Evidence) -> None:
    [row] = rows_for(guideline(known).frame, "validation", memory="24 GiB", forgetting="at most 2 %").to_dict("records")
    assert "forget too much: Task Arithmetic" in row["decides"]
    assert "need more memory: TIES" in row["decides"]


def test_without_items_only_the_highest_is_named_and_the_rest_is_open(tmp_path: Path) -> None:
    evidence = decisive(tmp_path, items=False).evidence()
    [row] = rows_for(guideline(evidence).frame, "validation", memory="any", forgetting="at most 2 %").to_dict("records")
    assert row["recommended"] == "ties"
    assert "cannot be told of Model Soup, DARE" in row["decides"]
    shares = pareto(evidence).frame.query("source == 'campaign'")["two_way_share"]
    assert set(shares) == {"n/a"}
    assert set(differences(evidence).display.iloc[:, 2:].to_numpy().ravel()) == {"-", "n/a"}


@pytest.mark.parametrize("lost", ["merged_ties/mmlu", "merged_ties/gsm8k"])
def test_a_method_that_lacks_a_score_is_missing_not_last(tmp_path: Path, lost: str) -> None:
    campaign = decisive(tmp_path, items=False)
    (campaign.root / f"scores/{BASE}/{lost}.json").unlink()
    frame = pareto(campaign.evidence()).frame.query("source == 'campaign'").set_index("method")
    assert frame.loc["ties", ["two_way", "three_way"]].isna().all()
    assert frame.loc["task_arithmetic", "two_way"] == "yes"
    row = next(line for line in to_csv(pareto(campaign.evidence())).splitlines() if line.startswith(f"campaign,{BASE},ties"))
    assert "missing" in row


def test_a_method_without_a_price_is_judged_without_it(tmp_path: Path) -> None:
    campaign = decisive(tmp_path, items=False)
    (campaign.root / f"costs/tune/{BASE}/ties.json").unlink()
    frame = pareto(campaign.evidence()).frame.query("source == 'campaign'").set_index("method")
    assert frame.loc["ties", "two_way"] == "yes"
    assert pd.isna(frame.loc["ties", "three_way"])


def test_an_empty_campaign_still_has_the_papers_rows(campaign: Campaign) -> None:
    evidence = campaign.evidence()
    for table in (pareto(evidence), guideline(evidence), differences(evidence)):
        assert "missing" in to_markdown(table) or table.name == "guideline"
    frame = guideline(evidence).frame
    assert set(frame[frame["base"] == "Overall"]["recommended"]) == {"n/a"}
    assert frame[frame["base"] == "Paper's tables"]["recommended"].str.contains("localize_and_stitch").any()
