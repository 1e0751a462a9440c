"""What methods have used in all, and its price: sums of their jobs, and nothing where a job does not say."""

import dataclasses
import json
import math

import pandas as pd
import pytest

from mergebench.analysis.costs import read_costs
from mergebench.analysis.spending import needs, shared, spending
from mergebench.errors import MergebenchError
from tests.unit.analysis.synthetic import DOMAINS, Campaign

LLAMA, GEMMA = "tiny-llama-strong", "tiny-gemma-2-strong"
JOULES = 3.6e6


@pytest.fixture
def charged(campaign: Campaign) -> Campaign:
    """The cost records of two bases and three methods."""
    for base in campaign.bases:
        for position, method in enumerate(campaign.methods):
            campaign.write_method_costs(base, method, position)
    return campaign


def spent_by(campaign: Campaign) -> pd.DataFrame:
    return spending(read_costs(campaign.inputs["costs"]), campaign.scope)


def change(campaign: Campaign, name: str, **changes: object) -> None:
    path = campaign.root / "costs" / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_method_pays_for_all_jobs_that_it_reads(charged: Campaign) -> None:
    spent = spent_by(charged).loc[LLAMA]
    jobs = {"model_soup": 1, "ties": 2, "fisher": 7}
    for method, count in jobs.items():
        assert spent.loc[method, "wall_seconds"] == 20 * count
        assert spent.loc[method, "cpu_hours"] == pytest.approx(20 * count / 3600)
        assert spent.loc[method, "price"] == pytest.approx(0.04 * 20 * count / 3600)
        assert spent.loc[method, "gpu_hours"] == 0


def test_hours_of_gpus_are_priced(charged: Campaign) -> None:
    change(charged, f"tune/{LLAMA}/ties", gpu_seconds=7200.0, cpu_seconds=0.0, gpu_peak_bytes=3 * 2**30)
    change(charged, f"merge/{LLAMA}/ties", cpu_seconds=3600.0)
    spent = spent_by(charged).loc[(LLAMA, "ties")]
    assert spent["price"] == pytest.approx(2 * 2.0 + 0.04)
    assert spent["peak_gpu_memory_mib"] == 3 * 1024


def test_overall_is_the_mean_over_bases_and_the_highest_peak(charged: Campaign) -> None:
    change(charged, f"merge/{LLAMA}/model_soup", cpu_seconds=60.0, peak_rss_bytes=900 * 2**20)
    spent = spent_by(charged)
    assert spent.loc[("Overall", "model_soup"), "cpu_hours"] == pytest.approx(40 / 3600)
    assert spent.loc[("Overall", "model_soup"), "peak_memory_mib"] == 900


@pytest.mark.parametrize("lost", ["merge/{}/fisher", "tune/{}/fisher", "statistics/{}/coding/fisher"])
def test_a_lost_record_makes_the_price_unknown_here_and_overall(charged: Campaign, lost: str) -> None:
    (charged.root / "costs" / f"{lost.format(LLAMA)}.json").unlink()
    spent = spent_by(charged)
    assert spent.loc[LLAMA].loc["fisher"].isna().all()
    assert spent.loc["Overall"].loc["fisher"].isna().all()
    assert spent.loc[(GEMMA, "fisher"), "price"] > 0


def test_records_without_what_newer_ones_say_are_read(charged: Campaign) -> None:
    path = charged.root / "costs" / f"merge/{LLAMA}/model_soup.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({key: record[key] for key in ("stage", "base", "method", "wall_seconds", "peak_rss_bytes", "timing")}))
    spent = spent_by(charged).loc[(LLAMA, "model_soup")]
    assert spent["wall_seconds"] == 20
    assert spent[["cpu_hours", "gpu_hours", "energy_kwh", "price"]].isna().all()


def energy(gpu: float | None, packages: float | None, whole: bool) -> dict[str, object]:
    return {"energy_joules": {"gpu": gpu, "cpu_package": packages, "whole_node": whole}}


@pytest.mark.parametrize(
    ("gpu_seconds", "record", "kwh"),
    [
        (10.0, energy(2 * JOULES, JOULES, True), 3.0),
        (10.0, energy(2 * JOULES, JOULES, False), 2.0),
        (10.0, energy(2 * JOULES, None, True), 2.0),
        (10.0, energy(None, JOULES, True), math.nan),
        (0.0, energy(None, JOULES, True), 1.0),
        (0.0, energy(None, JOULES, False), math.nan),
        (0.0, energy(None, None, True), math.nan),
    ],
)
def test_energy_is_that_of_devices_of_the_job(charged: Campaign, gpu_seconds: float, record: dict, kwh: float) -> None:
    change(charged, f"merge/{LLAMA}/model_soup", gpu_seconds=gpu_seconds, **record)
    assert spent_by(charged).loc[(LLAMA, "model_soup"), "energy_kwh"] == pytest.approx(kwh, nan_ok=True)


def test_a_price_of_energy_is_added_and_needs_its_measure(charged: Campaign) -> None:
    charged.prices = {"gpu_hour": 0.0, "cpu_hour": 0.0, "kwh": 0.5, "currency": "EUR"}
    change(charged, f"merge/{LLAMA}/model_soup", **energy(None, JOULES, True))
    price = spent_by(charged)["price"]
    assert price[LLAMA, "model_soup"] == pytest.approx(0.5)
    assert math.isnan(price[LLAMA, "ties"])


def test_without_prices_there_is_no_price(charged: Campaign) -> None:
    charged.prices = None
    assert spent_by(charged)["price"].isna().all()


def test_earlier_attempts_count_in_time(charged: Campaign) -> None:
    earlier = {"failed": 2, "wall_seconds": 100.0, "gpu_seconds": 400.0, "ends": []}
    change(charged, f"tune/{LLAMA}/ties", gpu_seconds=80.0, attempts=earlier)
    spent = spent_by(charged).loc[(LLAMA, "ties")]
    assert (spent["wall_seconds"], spent["gpu_hours"], spent["earlier_attempts"]) == (140, pytest.approx(480 / 3600), 2)


def test_gpus_of_which_no_memory_was_seen_leave_the_peak_unknown(charged: Campaign) -> None:
    """An engine in a process of its own allocates what this one does not see."""
    change(charged, f"tune/{LLAMA}/ties", gpu_seconds=80.0, gpu_peak_bytes=0)
    peaks = spent_by(charged).loc[LLAMA, "peak_gpu_memory_mib"]
    assert math.isnan(peaks["ties"])
    assert peaks["model_soup"] == 0


@pytest.mark.parametrize(
    "changes", [{"cpu_seconds": -1}, {"gpu_seconds": True}, {"attempts": {"wall_seconds": "9"}}, energy(-1.0, None, True)]
)
def test_a_malformed_record_is_refused_with_file_and_key(charged: Campaign, changes: dict[str, object]) -> None:
    change(charged, f"merge/{LLAMA}/ties", **{"gpu_seconds": 1.0, **changes})
    with pytest.raises(MergebenchError, match=rf"ties\.json: key '{next(iter(changes))}'"):
        spent_by(charged)


def test_what_methods_need() -> None:
    scope = Campaign(root=None, methods=["model_soup", "ties", "fisher", "regmean"]).scope  # type: ignore[arg-type]
    found = {method: needs(scope, method) for method in scope.methods}
    # The campaign tunes all but Model Soup.
    tuned_on_both = "training and validation"
    assert found == {"model_soup": "nothing", "ties": "validation", "fisher": tuned_on_both, "regmean": tuned_on_both}


def test_what_several_methods_read_is_shared_and_nothing_else(charged: Campaign) -> None:
    charges = read_costs(charged.inputs["costs"])
    assert shared(charges, charged.scope) == {}
    scope = dataclasses.replace(charged.scope, statistics={"fisher": ("fisher",), "ties": ("fisher",)})
    assert shared(charges, scope) == {"fisher": (2 * len(DOMAINS) * 20.0, ("ties", "fisher"))}
