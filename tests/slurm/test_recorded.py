"""The Slurm profile, the plugin and the status loop together, on recorded ends of jobs, where no Slurm can be started."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.dag.campaign import Campaign
from tests.slurm import recorded

BASE = "tiny-llama-strong"
TARGET = f"results/micro/vectors/{BASE}/safety/manifest.json"
OPTIONS = ["--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1", "--latency-wait", "10"]

pytestmark = pytest.mark.slurm


def start(folder: Path, fates: dict[str, list[str]], silent: int = 0) -> tuple[Campaign, Path, subprocess.Popen]:
    """A campaign that runs on the shim, the shim's folder, and the process."""
    campaign = Campaign.create(folder / "campaign")
    shim = folder / "shim"
    recorded.install(folder / "bin")
    shim.mkdir()
    (shim / "silent").write_text(str(silent))
    (shim / "fates.json").write_text(json.dumps(fates))
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    environment = {**os.environ, "SLURM_SHIM": str(shim), "PATH": path, "PYTHONPATH": str(campaign.folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", "--config", "preset=micro", *OPTIONS, "--", TARGET]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return campaign, shim, subprocess.Popen(command, cwd=campaign.folder, env=environment, **streams)


def test_ends_outages_and_forgotten_jobs_end_in_the_result(tmp_path):
    """Training is killed for its memory once, then preempted for good; Slurm is silent, and forgets the job after it."""
    fates = {"train_specialist": ["OUT_OF_MEMORY", "PREEMPTED"], "vectors": [recorded.PURGED]}
    campaign, shim, process = start(tmp_path, fates, silent=2)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said[-6000:]
    assert (campaign.folder / TARGET).is_file()

    calls = [json.loads(line) for line in (shim / "calls.jsonl").read_text().splitlines()]
    assert [call["rule"] for call in calls] == ["tokenise"] + ["train_specialist"] * 3 + ["vectors"]
    _, first, after_memory, after_preemption, _ = calls
    assert int(after_memory["mem"]) == 2 * int(first["mem"])
    assert after_memory["time"] == first["time"]
    assert (after_preemption["mem"], after_preemption["time"]) == (after_memory["mem"], after_memory["time"])
    requested = json.loads((campaign.results / f"costs/train/{BASE}/specialist_safety.json").read_text())["requested"]
    assert (requested["mem_mb"], requested["runtime"]) == (int(after_preemption["mem"]), int(after_preemption["time"])), "the job knows it"
    assert f"mem_mb {after_memory['mem']} instead of {first['mem']}" in said
    assert "asks for the same" in said
    assert "Slurm answers again" in said
    locked = re.escape(str(campaign.folder / ".snakemake/mergebench/source-"))
    assert all(re.search(f"--snakefile '?{locked}", call["wrap"]) for call in calls)
    assert f"start train_specialist {BASE} specialist_safety" in said
    assert not list((campaign.folder / "results/slurm").rglob("5.log")), "the log of a job that succeeded goes"
    assert campaign.planned("--", TARGET) == {}


def test_sigterm_cancels_the_jobs_of_the_run_and_ends_it(tmp_path):
    campaign, shim, process = start(tmp_path, {})
    deadline = time.monotonic() + 300
    while not (shim / "1.pid").exists():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    run = re.search(r"SLURM run ID: (\S+)", said)
    assert run, said[-3000:]
    assert (shim / "cancelled").read_text() == f"--name={run[1]}"
    assert not (campaign.folder / TARGET).exists()
