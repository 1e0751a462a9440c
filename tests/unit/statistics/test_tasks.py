"""A statistics job in one process and in two, and one that is ended and taken up again: the same bytes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mergebench.artifacts import AGAIN, Job, execute, inventory
from mergebench.merging.statistics import run as stage
from tests.unit.statistics.conftest import write_specialist
from tests.unit.training.pico import sums, write_pico, write_rows

ROOT = Path(__file__).parents[3]
KINDS = ["fisher", "gram", "mask"]


def spec_of() -> dict:
    # More rows than lanes, and not a multiple of them.
    return {"base": "pico", "domain": "math", "kinds": KINDS, "settings": {"mask": {"steps": 6}}, "seed": 3}


def outputs(folder: Path) -> dict[str, Path]:
    return {**{kind: folder / "made" / f"{kind}.safetensors" for kind in KINDS}, "manifest": folder / "made" / "manifest.json"}


def start(folder: Path, inputs: dict[str, Path]) -> subprocess.Popen[str]:
    """The job as two tasks, which save what they have after every row."""
    words = ["run", "statistics", "--tasks", "2", "--state", f"{folder}/state", "--spec", json.dumps(spec_of())]
    words += ["--requested", "save_seconds=0", "batch_rows=2", "--input", *(f"{k}={v}" for k, v in inputs.items())]
    words += ["--output", *(f"{k}={v}" for k, v in outputs(folder).items()), f"cost={folder}/cost.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "mergebench", *words], env=environment, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> int:
    """Send SIGTERM to the launcher when the first rows are done; returns the status."""
    assert process.stderr
    for line in process.stderr:
        if "rows" in line:
            process.send_signal(signal.SIGTERM)
            break
    process.communicate(timeout=300)
    return process.returncode


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    base = write_pico(folder / "pico" / "base" / "weights", "gemma2")
    data = write_rows(folder / "train_math", sums(4), calibration=sums(37, 4))
    return {"base": base, "specialist": write_specialist(base, folder), "data": data}


@pytest.mark.long
def test_two_processes_that_were_ended_give_what_one_gives(tmp_path, inputs):
    before = {name: inventory(path) for name, path in inputs.items()}
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    execute(stage, Job("statistics", spec_of(), inputs, outputs(alone), alone / "state", requested={"batch_rows": 2}))
    assert end(start(shared, inputs)) == AGAIN
    assert not (shared / "made" / "manifest.json").exists()
    last = start(shared, inputs)
    _, errors = last.communicate(timeout=300)
    assert last.returncode == 0, errors
    assert inventory(shared / "made") == inventory(alone / "made")
    cost = json.loads((shared / "cost.json").read_text())
    assert cost["run"]["tasks"] == 2
    assert cost["attempts"]["failed"] == 1
    assert cost["memory_bytes"]["fisher"]["model"] > 0
    assert not list((shared / "state").iterdir())
    assert {name: inventory(path) for name, path in inputs.items()} == before
