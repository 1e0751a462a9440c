"""Two tasks train as one process does: same samples in each step, same gradient, one writer, interruptions survived."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mergebench.artifacts import damaged, inventory
from tests.unit.training.pico import sft_spec, sums, words, write_rows

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.long


class Training:
    """Runs of one training job, by one process or two tasks, in a folder."""

    def __init__(self, folder: Path, base: Path, spec: dict, tasks: int, **inputs: Path) -> None:
        self.folder, self.out, self.state = folder, folder / "out", folder / "state"
        named = [f"{name}={path}" for name, path in {"base": base, **inputs}.items()]
        made = [f"{name}={self.out / file}" for name, file in (("manifest", "manifest.json"), ("weights", "weights"))]
        made += [f"log={self.out}/losses.jsonl", f"cost={folder}/cost.json"]
        options = ["--state", str(self.state), "--spec", json.dumps(spec), "--input", *named, "--output", *made]
        self.words = ["run", "train", "--tasks", str(tasks), *options]

    def start(self) -> subprocess.Popen[str]:
        """Start it in a process group of its own; its messages are on stderr."""
        command = [sys.executable, "-m", "mergebench", *self.words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def run(self) -> "Training":
        process = self.start()
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        return self

    def losses(self) -> list[float]:
        return [json.loads(line)["loss"] for line in (self.out / "losses.jsonl").read_text().splitlines()]

    def weights(self):
        from safetensors.torch import load_file

        return load_file(self.out / "weights/model.safetensors")

    @property
    def manifest(self) -> dict:
        return json.loads((self.out / "manifest.json").read_text())

    @property
    def cost(self) -> dict:
        return json.loads((self.folder / "cost.json").read_text())


@pytest.fixture(scope="module")
def math(tmp_path_factory):
    """Rows whose responses have from one to nine tokens, so that two tasks hold different numbers of them."""
    return write_rows(tmp_path_factory.mktemp("data") / "train_math", sums(40) + words(40))


SPEC = sft_spec(30, log_every=1, micro_batch_size=2, checkpoint_seconds=1e-6)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, pico_llama, math):
    return Training(tmp_path_factory.mktemp("alone"), pico_llama, SPEC, 1, data=math).run()


@pytest.fixture(scope="module")
def shared(tmp_path_factory, pico_llama, math):
    return Training(tmp_path_factory.mktemp("shared"), pico_llama, SPEC, 2, data=math).run()


def test_two_tasks_have_the_losses_and_the_weights_of_one_process(alone, shared):
    import torch

    assert shared.losses() == pytest.approx(alone.losses(), rel=1e-5)
    for name, one in alone.weights().items():
        torch.testing.assert_close(shared.weights()[name], one, rtol=1e-3, atol=2e-5)


def test_the_manifest_does_not_tell_how_many_tasks_there_were(alone, shared):
    rounded = ("files", "weights_digest")
    assert {k: v for k, v in shared.manifest.items() if k not in rounded} == {k: v for k, v in alone.manifest.items() if k not in rounded}
    assert damaged(shared.out / "manifest.json", content=True) is None


def test_only_outputs_are_left(shared):
    assert sorted(path.name for path in shared.out.iterdir()) == ["losses.jsonl", "manifest.json", "weights"]
    assert list(shared.state.iterdir()) == []


def test_the_cost_record_counts_both_tasks(alone, shared):
    assert shared.cost["run"]["tasks"] == 2
    assert shared.cost["cpu_seconds"] > 1.3 * alone.cost["cpu_seconds"]
    assert shared.cost["peak_rss_bytes"] > 1.3 * alone.cost["peak_rss_bytes"]
    assert shared.cost["timing"].keys() == alone.cost["timing"].keys()


def task(launcher: subprocess.Popen, rank: int) -> int:
    """The process of a task."""
    for child in map(int, Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()):
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return child
    raise AssertionError(f"no task {rank}")


def await_training(launcher: subprocess.Popen[str]) -> None:
    """Read until the first report of a step."""
    assert launcher.stderr
    seen = []
    for line in launcher.stderr:
        seen.append(line)
        if re.search(r"sft step.*: \d+/", line):
            return
    raise AssertionError("".join(seen))


def test_signals_and_kills_leave_the_result_as_it_is(tmp_path, pico_llama, math, shared):
    """One job, ended in four ways and taken up again each time."""
    broken = Training(tmp_path, pico_llama, SPEC, 2, data=math)

    launcher = broken.start()  # a signal to one task: all save, and the status says "again"
    await_training(launcher)
    os.kill(task(launcher, 1), signal.SIGUSR1)
    _, errors = launcher.communicate(timeout=180)
    assert launcher.returncode == 75, errors
    (checkpoint,) = broken.state.glob("train-*/checkpoints/*/complete.json")
    assert "rng_state_1.pth" in json.loads(checkpoint.read_text())["files"]

    launcher = broken.start()  # a signal to the launcher reaches the tasks
    await_training(launcher)
    launcher.send_signal(signal.SIGTERM)
    _, errors = launcher.communicate(timeout=180)
    assert launcher.returncode == 75, errors
    assert len(list(broken.state.glob("train-*/checkpoints/*/complete.json"))) == 1

    launcher = broken.start()  # a task that is killed ends the others at once; a collective alone would wait for half an hour
    await_training(launcher)
    other = task(launcher, 0)
    os.kill(task(launcher, 1), signal.SIGKILL)
    _, errors = launcher.communicate(timeout=180)
    assert launcher.returncode == 1
    assert "One of 2 tasks was killed by SIGKILL" in errors
    assert not Path(f"/proc/{other}").exists()

    launcher = broken.start()  # everything is killed, the launcher first: tasks do not train on unattended
    await_training(launcher)
    tasks = [task(launcher, rank) for rank in (0, 1)]
    launcher.kill()
    launcher.communicate()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text() for pid in tasks):
        assert time.monotonic() < deadline, "a task trains on"
        time.sleep(0.1)
    assert not broken.out.joinpath("manifest.json").exists()

    broken.run()
    assert broken.manifest == shared.manifest
    assert inventory(broken.out) == inventory(shared.out)
    ends = [end["reason"].split(":")[0] for end in broken.cost["attempts"]["ends"]]
    assert ends[:2] == ["SIGUSR1", "SIGTERM"]
    assert ends[2].startswith("One of 2 tasks was killed")
    assert len(ends) == broken.cost["attempts"]["failed"] == 4
    assert broken.cost["run"]["attempt"] == 5


def test_the_error_of_a_task_is_the_jobs(tmp_path, pico_llama, math):
    spec = sft_spec(2, batch_size=6, micro_batch_size=2)
    launcher = Training(tmp_path, pico_llama, spec, 2, data=math).start()
    _, errors = launcher.communicate(timeout=180)
    assert launcher.returncode == 1
    assert re.search(r"mergebench: task \d of 2 on \S+: 6 samples a step do not divide into 2 processes x micro-batches of 2", errors)
    assert errors.count("do not divide") == 1
