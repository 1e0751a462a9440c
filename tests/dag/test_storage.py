"""Dropping merged weights on a real campaign: the same tables, fewer bytes, and nothing that is finished is made again."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.dag.campaign import Campaign

pytestmark = [pytest.mark.dag, pytest.mark.long]
BASES = ("tiny-llama-weak", "tiny-llama-strong")
METHODS = ("model_soup", "task_arithmetic")
MERGED = (*METHODS, "random_direction")


def configure(campaign: Campaign, **storage: object) -> None:
    """A smaller micro preset with two bases and two methods, and the storage settings given."""
    path = campaign.folder / "config.yaml"
    raw = yaml.safe_load(path.read_text())
    micro = raw["presets"]["micro"]
    micro["bases"] = list(BASES)
    micro["training"] |= {"grpo": None, "multitask": None}
    micro["merging"]["methods"] = {m: micro["merging"]["methods"][m] for m in METHODS}
    micro["evaluation"] |= {"in_domain": ["gsm8k", "wildguardtest"], "forgetting": ["triviaqa"]}
    micro["storage"] = storage
    path.write_text(yaml.safe_dump({**raw, "presets": {"micro": micro}, "preset": "micro"}, sort_keys=False))


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Campaign:
    campaign = Campaign.create(tmp_path_factory.mktemp("storage") / "kept")
    configure(campaign)
    campaign.run()
    return campaign


@pytest.fixture(scope="module")
def budget(kept) -> float:
    """A budget in GB within which only one base can have its merged models at once."""
    configure(kept, keep_merged=False, budget_gb=1e-6)
    process = kept.start(warm=False)
    output, _ = process.communicate(timeout=300)
    configure(kept)
    assert process.returncode != 0
    peak = float(re.search(r"may need ([\d,]+) MB at its peak", output).group(1).replace(",", ""))
    return (peak + 1) / 1000


@pytest.fixture(scope="module")
def dropped(kept, budget, tmp_path_factory) -> Campaign:
    """The same campaign, with dropping and a budget from its first merge on."""
    campaign = kept.fork(tmp_path_factory.mktemp("storage") / "dropped")
    merged = [path for kind in ("models", "answers", "scores", ".state/asked") for path in campaign.results.glob(f"{kind}/*/merged_*")]
    for path in [*merged, campaign.results / "tables"]:
        shutil.rmtree(path)
    configure(campaign, keep_merged=False, budget_gb=budget)
    campaign.run()
    return campaign


@pytest.fixture
def campaign(dropped, tmp_path) -> Campaign:
    return dropped.fork(tmp_path / "campaign")


def tables(campaign: Campaign) -> dict[str, bytes]:
    names = ("normalised_performance.csv", "forgetting.csv", "specialisation.csv", "scores.csv")
    return {name: (campaign.results / "tables" / name).read_bytes() for name in names}


def size(campaign: Campaign) -> int:
    return sum(p.stat().st_size for p in campaign.results.glob("models/*/merged_*/**/*") if p.is_file())


def shards(campaign: Campaign) -> list[Path]:
    return sorted(campaign.results.glob("models/*/merged_*/weights/*.safetensors"))


def test_the_tables_are_the_same_and_the_bytes_fewer(kept, dropped):
    assert tables(dropped) == tables(kept)
    assert len(shards(kept)) == len(BASES) * len(MERGED)
    assert shards(dropped) == []
    assert size(dropped) < size(kept) / 2
    assert dropped.planned() == {}


def test_the_second_base_was_merged_after_the_first_was_dropped(dropped):
    records = [dropped.results / f"models/{BASES[0]}/merged_{m}/dropped.json" for m in MERGED]
    merges = [dropped.results / f"models/{BASES[1]}/merged_{m}/manifest.json" for m in MERGED]
    assert max(p.stat().st_mtime_ns for p in records) <= min(p.stat().st_mtime_ns for p in merges)


def test_a_deleted_score_is_made_again_as_it_was_and_nothing_else_is(campaign):
    before = tables(campaign)
    score = campaign.results / f"scores/{BASES[0]}/merged_task_arithmetic/gsm8k.json"
    content = json.loads(score.read_text())
    score.unlink()
    planned = {"evaluate_general": 1, "judge": 1, "settle_safety": 1, "drop_weights": 1, "analyse": 1, "report": 1, "official": 1, "all": 1}
    assert campaign.planned() == planned
    shutil.rmtree(campaign.results / ".state/asked")  # else the score is restored without the weights
    campaign.run()
    assert {**json.loads(score.read_text()), "seconds": 0} == {**content, "seconds": 0}
    assert tables(campaign) == before
    assert shards(campaign) == []
    log = campaign.results / f"logs/evaluate/{BASES[0]}/merged_task_arithmetic/general.log"
    assert "was dropped; making it again" in log.read_text()
    assert campaign.planned() == {}


def test_a_score_that_is_kept_is_restored_without_the_weights(campaign):
    score = campaign.results / f"scores/{BASES[0]}/merged_task_arithmetic/gsm8k.json"
    content = score.read_bytes()
    score.unlink()
    campaign.run()
    assert score.read_bytes() == content
    assert "making it again" not in (campaign.results / f"logs/evaluate/{BASES[0]}/merged_task_arithmetic/general.log").read_text()


def test_changing_the_settings_makes_nothing_finished_again(kept, campaign, budget, tmp_path):
    for settings in ({}, {"keep_merged": False}, {"keep_merged": False, "budget_gb": 1000.0}, {"budget_gb": 1000.0}):
        configure(campaign, **settings)
        assert campaign.planned().keys() <= {"admit", "all"}, settings
    whole = kept.fork(tmp_path / "whole")
    for settings in ({"keep_merged": False}, {"keep_merged": False, "budget_gb": budget}):
        configure(whole, **settings)
        planned = whole.planned()
        assert planned["drop_weights"] == len(BASES) * len(MERGED)
        assert planned.keys() <= {"drop_weights", "admit", "all"}, settings


def test_one_file_asked_for_does_not_wait_for_other_bases(dropped, budget, tmp_path):
    fresh = Campaign.create(tmp_path / "fresh")
    configure(fresh, keep_merged=False, budget_gb=budget)
    target = f"results/micro/models/{BASES[1]}/merged_model_soup/manifest.json"
    one, all_of_them = fresh.planned("--", target), fresh.planned("--", "all")
    assert one["merge"] == 1
    assert one["train_specialist"] == all_of_them["train_specialist"] / 2
    assert "drop_weights" not in one


def test_the_plan_of_a_finished_campaign_has_nothing_to_do_and_knows_what_jobs_took(dropped):
    command = [sys.executable, "-m", "mergebench.cli", "plan", "--preset", "micro", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(dropped.folder)}
    done = subprocess.run(command, cwd=dropped.folder, env=environment, capture_output=True, text=True, timeout=300, check=True)
    record = json.loads(done.stdout)
    assert (record["todo"], record["gpu_hours"], record["wall_hours"]) == (0, 0, 0)
    assert record["jobs"] > 30
    assert record["corrections"].keys() >= {"train", "merge", "evaluate"}


def test_verify_and_a_second_look_accept_dropped_models(dropped):
    from mergebench.cli import main

    assert main(["verify", str(dropped.results), "--content"]) == 0
    record = json.loads((dropped.results / f"models/{BASES[0]}/merged_model_soup/dropped.json").read_text())
    assert record["bytes"] > 1_000_000
