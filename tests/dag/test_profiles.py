"""The three ways to name the Slurm profile give a job the same resources."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mergebench.errors import MergebenchError
from mergebench.workflow import profiles

ROOT = Path(__file__).parents[2]
TARGET = "results/paper/models/gemma-2-9b/multitask/manifest.json"

pytestmark = [pytest.mark.dag, pytest.mark.xdist_group("profiles")]


def planned_resources(options: list[str], configuration: Path) -> list[tuple[str, ...]]:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(configuration)}
    command = [sys.executable, "-m", "snakemake", "--dry-run", *options, "--", TARGET]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = re.findall(r"^    resources: (.*)$", done.stdout + done.stderr, re.MULTILINE)
    return sorted(tuple(sorted(line.split(", "))) for line in lines)  # Snakemake's order within a line varies


def test_every_way_to_name_the_profile_gives_the_same_resources(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    profiles.install("slurm")
    ways = [["--profile", "slurm"], ["--profile", "profiles/slurm"], ["--workflow-profile", "slurm"]]
    found = [planned_resources(way, tmp_path) for way in ways]
    assert found[0] == found[1] == found[2]
    training = next(line for line in found[0] if "mem_mb=512000" in line)
    assert "gpu=1" in training
    assert any(resource.startswith("slurm_partition=") for resource in training)


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
