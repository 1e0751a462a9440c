"""The Slurm profile: its three names give a job the same resources, and these give sound sbatch commands."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from snakemake.iocontainers import ResourceList
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string
from snakemake_executor_plugin_slurm.validation import validate_slurm_extra

from mergebench import config
from mergebench.errors import MergebenchError
from mergebench.workflow import profiles
from mergebench.workflow.plan import Plan
from mergebench.workflow.resources import Resources, Site

ROOT = Path(__file__).parents[2]
PROFILE = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
TARGET = "results/paper/models/gemma-2-9b/multitask/manifest.json"
TINY = "results/micro/models/tiny-llama-strong/multitask/manifest.json"

pytestmark = pytest.mark.dag


def planned_resources(options: list[str], configuration: Path, target: str = TARGET) -> list[tuple[str, ...]]:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(configuration)}
    # All jobs are planned, whatever this folder's own results hold.
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--forceall", *options, "--", target]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = re.findall(r"^    resources: (.*)$", done.stdout + done.stderr, re.MULTILINE)
    return sorted(tuple(sorted(line.split(", "))) for line in lines)  # Snakemake's order within a line varies


def training_job(lines: list[tuple[str, ...]]) -> SimpleNamespace:
    """The one job that trains, as the plugin sees it."""
    (line,) = (line for line in lines if any(word.startswith("slurm_extra=") for word in line))
    values: dict[str, Any] = dict(word.split("=", 1) for word in line)
    resources = ResourceList(fromdict={name: int(value) if value.isdigit() else value for name, value in values.items()})
    return SimpleNamespace(resources=resources, threads=8)


def submission(job: SimpleNamespace) -> str:
    """What the plugin hands to sbatch."""
    validate_slurm_extra(job)
    parameters = {"run_uuid": "u", "slurm_logfile": "l", "comment_str": "c", "account": "", "partition": "", "workdir": None}
    return get_submit_command(
        job, parameters, SimpleNamespace(requeue=PROFILE["slurm-requeue"], qos=None, reservation=None)
    ) + set_gres_string(job)


def test_every_way_to_name_the_profile_gives_the_same_resources(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    profiles.install("slurm")
    ways = [["--profile", "slurm"], ["--profile", "profiles/slurm"], ["--workflow-profile", "slurm"]]
    found = [planned_resources(way, tmp_path) for way in ways]
    assert found[0] == found[1] == found[2]
    commands = {submission(training_job(lines)) for lines in found}
    assert len(commands) == 1
    job, command = training_job(found[0]), commands.pop()
    assert job.resources.gpu > 1, "the largest base needs several GPUs"
    for word in ("--nodes=1", f"--gpus={job.resources.gpu}", f"--mem {job.resources.mem_mb}", "--requeue", "--signal=USR1@600"):
        assert f" {word}" in command
    assert f" -t {job.resources.runtime} " in command
    assert job.resources.slurm_partition == PROFILE["default-resources"]["slurm_partition"]


def test_the_tiny_twins_are_not_warned_before_they_have_begun(tmp_path):
    """Their time limit is shorter than the notice."""
    job = training_job(planned_resources(["--profile", "profiles/slurm", "--config", "preset=micro"], tmp_path, TINY))
    assert "--signal" not in submission(job)
    assert job.resources.gpu == 0


def test_no_job_of_the_paper_asks_for_more_gpus_than_the_quota():
    """A smaller quota is not refused by Snakemake: it cuts the requests down to itself."""
    plan = Plan(config.load(ROOT / "config.yaml", preset="paper"))
    resources = Resources(plan, Site.of(PROFILE["default-resources"]))
    models = [*plan.specialists, "multitask"]
    largest = max(resources.of("train", base=base, model=model).gpu for base in plan.bases for model in models)
    assert 1 < largest <= PROFILE["resources"]["gpu"]


def test_the_profile_asks_for_at_most_account_and_partition():
    lines = (ROOT / "profiles/slurm/config.yaml").read_text().splitlines()
    marked = [line.strip("# ").partition(":")[0] for line in lines if "FILL IN" in line and ":" in line.partition("FILL IN")[0]]
    assert marked == ["slurm_partition", "slurm_account"]


def test_every_setting_of_the_profile_is_explained():
    lines = (ROOT / "profiles/slurm/config.yaml").read_text().splitlines()
    groups = "\n".join(lines).split("\n\n")
    unexplained = [group for group in groups if "#" not in group]
    assert unexplained == []


def test_an_unknown_profile_names_the_nearest(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    with pytest.raises(MergebenchError, match="did you mean 'slurm'"):
        profiles.install("slum")


def test_installing_twice_is_fine_and_a_foreign_profile_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    assert profiles.install("slurm") == profiles.install("slurm")
    (tmp_path / "snakemake/tiny").mkdir()
    with pytest.raises(MergebenchError, match="is not a link"):
        profiles.install("tiny")
