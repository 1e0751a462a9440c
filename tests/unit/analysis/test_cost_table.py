"""The table of costs on a campaign whose prices and gains are known."""

import math
from pathlib import Path

import pytest

from mergebench.analysis.cost_table import costs, figures
from mergebench.analysis.render import to_csv, to_markdown
from mergebench.analysis.tables import Evidence
from tests.unit.analysis.decisive import BASE, decisive
from tests.unit.analysis.synthetic import Campaign

LLAMA = "tiny-llama-strong"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return decisive(tmp_path_factory.mktemp("decisive")).evidence()


def test_every_method_stands_where_it_must_against_the_soup(known: Evidence) -> None:
    frame = costs(known).frame.set_index("method")
    assert frame["against_soup"].to_dict() == {
        "model_soup": "reference",
        "task_arithmetic": "better, costs more",
        "ties": "better, costs more",
        "fisher": "dominated",
        "dare": "not separable",
    }


def test_a_point_costs_the_difference_of_prices_by_that_of_performance(known: Evidence) -> None:
    """2 USD per GPU-hour: 3 hours more for (0.7 - 0.4) / 0.8 of the specialists."""
    row = costs(known).frame.set_index("method").loc["ties"]
    assert row["price"] == pytest.approx(8.0)
    assert row["price_per_point"] == pytest.approx(2 * 3 / 37.5)
    assert row["price_per_point_low"] < row["price_per_point"] < row["price_per_point_high"] < math.inf


def test_the_soup_and_what_has_no_ratio_show_none(known: Evidence) -> None:
    frame = costs(known).frame.set_index("method")
    for method in ("model_soup", "fisher", "dare"):
        assert set(frame.loc[method, ["price_per_point", "price_per_point_low", "price_per_point_high"]]) == {"n/a"}


def test_a_better_method_that_costs_less_needs_no_price(tmp_path: Path) -> None:
    campaign = decisive(tmp_path)
    for stage in ("tune", "merge"):
        campaign.write_cost(f"{stage}/{BASE}/ties", {"algorithm": 1.0}, method="ties", gpu_seconds=1.0, cpu_seconds=0.0)
    assert costs(campaign.evidence()).frame.set_index("method").loc["ties", "against_soup"] == "better, costs no more"


def test_a_missing_record_shows_as_missing_with_its_target(campaign: Campaign) -> None:
    campaign.write()
    (campaign.root / f"costs/tune/{LLAMA}/ties.json").unlink()
    table = costs(campaign.evidence())
    frame = table.frame.set_index(["base", "method"])
    for base in (LLAMA, "Overall"):
        assert frame.loc[(base, "ties"), ["price", "wall_seconds", "cpu_hours"]].isna().all()
    assert any(f"`costs/tune/{LLAMA}/ties.json`" in note for note in table.notes)
    row = next(line for line in to_csv(table).splitlines() if line.startswith(f"{LLAMA},ties"))
    assert row.count("missing") >= 5


def test_an_empty_campaign_has_nothing_but_gaps(campaign: Campaign) -> None:
    table = costs(campaign.evidence())
    assert table.frame[["price", "cpu_hours", "algorithm_seconds"]].isna().all(axis=None)
    assert "0.00" not in to_markdown(table)


def test_what_nobody_measured_is_not_missing(complete: Campaign) -> None:
    assert set(costs(complete.evidence()).frame["energy_kwh"]) == {"n/a"}


def test_without_items_nothing_is_compared(complete: Campaign) -> None:
    frame = costs(complete.evidence()).frame
    assert set(frame["against_soup"]) == {"reference", "n/a"}


def test_without_prices_the_hours_remain(campaign: Campaign) -> None:
    campaign.prices = None
    frame = costs(campaign.write().evidence()).frame
    assert set(frame["price"]) == {"n/a"}
    assert (frame["cpu_hours"] > 0).all()


def test_without_a_soup_nothing_is_compared_with_it(campaign: Campaign) -> None:
    campaign.methods = ["ties", "fisher"]
    frame = costs(campaign.write().evidence()).frame
    assert set(frame["against_soup"]) == {"n/a"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.00"), (12.345, "12.35"), (0.034567, "0.035"), (0.00012345, "0.00012"), (math.nan, "missing"), ("n/a", "n/a")],
)
def test_small_numbers_keep_two_digits(value: float | str, shown: str) -> None:
    assert figures(value) == shown
