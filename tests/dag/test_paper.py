"""Snakemake plans the paper's campaign from nothing: the very jobs that the plan counts, and nothing is fetched."""

import json
import os
import subprocess
import sys

import pytest

from tests.dag.campaign import Campaign
from tests.unit.workflow.test_plan import PAPER

pytestmark = pytest.mark.dag


def test_the_dry_run_of_the_papers_preset_has_the_papers_jobs(tmp_path):
    campaign = Campaign.create(tmp_path / "paper", preset="paper")
    assert campaign.planned() == PAPER
    assert not campaign.results.exists()


def forecast(campaign: Campaign, *arguments: str) -> dict:
    command = [sys.executable, "-m", "mergebench.cli", "plan", "--preset", campaign.preset, "--json", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(campaign.folder)}
    done = subprocess.run(command, cwd=campaign.folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> Campaign:
    return Campaign.create(tmp_path_factory.mktemp("plan") / "paper", preset="paper")


def test_the_forecast_of_the_papers_preset(paper):
    record = forecast(paper)
    assert {rule: row["jobs"] for rule, row in record["rules"].items()} == PAPER
    assert record["jobs"] == record["todo"] == sum(PAPER.values())
    assert record["gpus"] == 64
    assert 1_000 < record["gpu_hours"] < 20_000
    assert record["gpu_hours"] / 64 <= record["wall_hours"] < record["gpu_hours"]
    assert not paper.results.exists()


def test_fewer_gpus_take_longer_and_one_target_takes_less(paper):
    target = "results/paper/scores/gemma-2-2b/merged_ties/gsm8k.json"
    wide, narrow, one = forecast(paper), forecast(paper, "--gpus", "8"), forecast(paper, target)
    assert narrow["wall_hours"] > wide["wall_hours"]
    assert narrow["gpu_hours"] == pytest.approx(wide["gpu_hours"])
    assert one["rules"]["fetch_base"]["jobs"] == one["rules"]["merge"]["jobs"] == 1
    assert one["gpu_hours"] < wide["gpu_hours"] / 8


def test_a_target_that_does_not_exist_is_refused_with_its_name(paper):
    command = [sys.executable, "-m", "mergebench.cli", "plan", "results/paper/nothing.csv"]
    environment = {**os.environ, "PYTHONPATH": str(paper.folder)}
    done = subprocess.run(command, cwd=paper.folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("mergebench: snakemake could not plan this:")
    assert "results/paper/nothing.csv" in done.stderr
