"""The efficiency table: requests against use, per rule."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from mergebench.analysis.efficiency import by_rule, read_jobs
from mergebench.analysis.render import to_csv, to_markdown
from mergebench.analysis.tables import efficiency
from mergebench.errors import MergebenchError
from tests.unit.analysis.synthetic import Campaign

LLAMA = "tiny-llama-strong"
MIB = 2**20


def write(campaign: Campaign, name: str, **changes: Any) -> Path:
    """A record as `mergebench run` leaves it."""
    stage, *rest = name.split("/")
    record = {
        "stage": stage,
        "base": rest[0],
        "wall_seconds": 600.0,
        "cpu_seconds": 600.0,
        "peak_rss_bytes": 500 * MIB,
        "gpu_seconds": 600.0,
        "gpu_peak_bytes": 8,
        "timing": {},
        "requested": {"mem_mb": 1000, "runtime": 40, "gpu": 1, "threads": 4},
        "attempts": {"failed": 0, "wall_seconds": 0.0, "gpu_seconds": 0.0, "ends": []},
        "run": {"gpus_visible": 1},
    }
    path = campaign.root / "costs" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record | changes), encoding="utf-8")
    return path


def rows(campaign: Campaign) -> dict[str, dict[str, Any]]:
    frame = by_rule(read_jobs(campaign.inputs["costs"], campaign.scope))
    return {row["rule"]: row for row in frame.to_dict("records")}


def test_shares_are_means_over_jobs_of_their_own_requests(campaign: Campaign) -> None:
    write(campaign, f"tune/{LLAMA}/ties")
    write(
        campaign, f"tune/{LLAMA}/dare", peak_rss_bytes=500 * MIB, wall_seconds=1200.0, requested={"mem_mb": 2000, "runtime": 80, "gpu": 1}
    )
    row = rows(campaign)["tune"]
    assert row["jobs"] == 2
    assert row["requested_memory_mib"] == 2000
    assert row["used_memory_mib_mean"] == row["used_memory_mib_max"] == 500
    assert row["memory_percent"] == pytest.approx((50 + 25) / 2)
    assert row["used_minutes_mean"] == 15
    assert row["used_minutes_max"] == 20
    assert row["time_percent"] == pytest.approx(25)
    assert row["gpu_percent"] == 100


def test_failed_attempts_and_their_time_are_summed(campaign: Campaign) -> None:
    write(campaign, f"merge/{LLAMA}/ties", attempts={"failed": 2, "wall_seconds": 90.0, "gpu_seconds": 0.0, "ends": []})
    write(campaign, f"merge/{LLAMA}/dare", attempts={"failed": 1, "wall_seconds": 30.0, "gpu_seconds": 0.0, "ends": []})
    row = rows(campaign)["merge"]
    assert row["failed_attempts"] == 3
    assert row["lost_minutes"] == pytest.approx(2)


def test_a_gpu_that_was_held_and_not_computed_on_is_not_used(campaign: Campaign) -> None:
    write(campaign, f"tune/{LLAMA}/ties", gpu_peak_bytes=0)
    row = rows(campaign)["tune"]
    assert row["requested_gpus"] == 1
    assert row["used_gpus_max"] == 0
    assert row["gpu_percent"] == 0


@pytest.mark.parametrize("requested", [{"mem_mb": 1000, "gpu": 0}, {"mem_mb": 1000}], ids=["none", "not-asked"])
def test_a_job_without_gpus_has_no_share_of_them(campaign: Campaign, requested: dict[str, int]) -> None:
    write(campaign, f"merge/{LLAMA}/ties", method="ties", requested=requested, gpu_peak_bytes=0)
    table = efficiency(campaign.evidence())
    row = next(csv.DictReader(io.StringIO(to_csv(table))))
    assert (row["requested_gpus"], row["used_gpus_max"], row["gpu_percent"]) == ("0", "0", "n/a")


def test_records_without_requests_give_not_applicable(campaign: Campaign) -> None:
    campaign.write()
    found = {row["rule"]: row for row in csv.DictReader(io.StringIO(to_csv(efficiency(campaign.evidence()))))}
    merge = found["merge"]
    assert int(merge["jobs"]) == len(campaign.bases) * len(campaign.methods)
    assert merge["requested_memory_mib"] == merge["memory_percent"] == merge["failed_attempts"] == "n/a"
    assert int(merge["used_memory_mib_max"]) == 302
    assert "missing" not in to_markdown(efficiency(campaign.evidence()))


@pytest.mark.parametrize(
    ("name", "changes", "rule"),
    [
        ("train/{base}/specialist_safety", {"model": "specialist_safety"}, "train_specialist"),
        ("train/{base}/multitask", {"model": "multitask"}, "train_multitask"),
        ("train/{base}/specialist_math", {"model": "specialist_math"}, "train_grpo"),
        ("evaluate/{base}/base/coding", {"model": "base"}, "evaluate_coding"),
        ("fetch_data/gsm8k", {"stage": "prepare", "base": None, "dataset": "gsm8k"}, "fetch_data"),
        ("fetch_data/train_math", {"stage": "prepare", "base": None, "dataset": "train_math"}, "fetch_training_data"),
        ("drop_weights/{base}/ties", {"stage": "drop"}, "drop_weights"),
    ],
)
def test_rules_are_those_of_the_workflow(campaign: Campaign, name: str, changes: dict[str, Any], rule: str) -> None:
    write(campaign, f"train/{LLAMA}/sft_math", model="sft_math")
    write(campaign, name.format(base=LLAMA), **changes)
    assert rows(campaign)[rule]["jobs"] == (2 if rule == "train_specialist" else 1)


def test_a_supervised_mathematics_specialist_is_not_called_reinforced(campaign: Campaign) -> None:
    write(campaign, f"train/{LLAMA}/specialist_math", model="specialist_math")
    assert set(rows(campaign)) == {"train_specialist"}


def test_rules_stand_in_the_order_of_the_data(campaign: Campaign) -> None:
    for name in ("evaluate", "merge", "tune", "train"):
        write(campaign, f"{name}/{LLAMA}/x")
    assert list(rows(campaign)) == ["train_specialist", "tune", "merge", "evaluate_x"]


def test_the_analysis_itself_and_other_bases_do_not_count(campaign: Campaign) -> None:
    write(campaign, "merge/some-other-base/ties")
    write(campaign, f"analyse/{LLAMA}")
    assert rows(campaign) == {}


def test_a_malformed_record_is_named(campaign: Campaign) -> None:
    write(campaign, f"merge/{LLAMA}/ties", requested=[1])
    with pytest.raises(MergebenchError, match=r"ties\.json: key 'requested' holds \[1\]"):
        rows(campaign)
