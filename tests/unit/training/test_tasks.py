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

pytestmark = pytest.mark.xdist_group("tasks")

ROOT = Path(__file__).parents[3]
# Stands for `python -m mergebench` and for a task of it, and notes the rows that enter each step of each process.
RECORDING = """
import json, os, runpy, sys
import trl
from mergebench.training import grpo

def note(kind, step, value):
    with open(f"{os.environ['SEEN']}/{kind}-{os.environ.get('RANK', '0')}.jsonl", "a") as stream:
        stream.write(json.dumps([step, value]) + chr(10))

train = trl.SFTTrainer.training_step
def training_step(self, model, inputs, *rest):
    for ids, mask in zip(inputs["input_ids"].tolist(), inputs["attention_mask"].tolist()):
        note("rows", self.state.global_step, [i for i, kept in zip(ids, mask) if kept])
    return train(self, model, inputs, *rest)
trl.SFTTrainer.training_step = training_step

reward = grpo.accuracy_reward
def accuracy_reward(prompts, trainer_state=None, **rest):
    for prompt in prompts:
        note("prompts", trainer_state.global_step, prompt[0]["content"])
    return reward(prompts=prompts, **rest)
grpo.accuracy_reward = accuracy_reward
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


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

    def recorded(self, tasks: int) -> "Training":
        """Run the tasks without their launcher, each noting what it sees."""
        from mergebench import launch

        (self.folder / "seen").mkdir(parents=True)
        (self.folder / "recording.py").write_text(RECORDING)
        port = launch._free_port()
        places = [launch.local_place(rank, tasks, port) if tasks > 1 else {"RANK": "0"} for rank in range(tasks)]
        started = [
            subprocess.Popen(
                [sys.executable, str(self.folder / "recording.py"), "mergebench.launch", str(self.folder / "seen"), *self.words],
                env={**os.environ, **place, "PYTHONPATH": str(ROOT), "SEEN": str(self.folder / "seen"), "OMP_NUM_THREADS": "1"},
            )
            for place in places
        ]
        failure = launch._first_failure(started)
        for process in started:
            process.kill()
        assert failure == 0
        return self

    def seen(self, kind: str) -> dict[int, list]:
        """What entered each step, over all processes, in a canonical order."""
        found: dict[int, list] = {}
        for path in sorted((self.folder / "seen").glob(f"{kind}-*.jsonl")):
            for step, value in map(json.loads, path.read_text().splitlines()):
                found.setdefault(step, []).append(value)
        return {step: sorted(values) for step, values in found.items()}

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


SPEC = sft_spec(6, log_every=1, micro_batch_size=2)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, pico_llama, math):
    return Training(tmp_path_factory.mktemp("alone"), pico_llama, SPEC, 1, data=math).run()


@pytest.fixture(scope="module")
def shared(tmp_path_factory, pico_llama, math):
    return Training(tmp_path_factory.mktemp("shared"), pico_llama, SPEC, 2, data=math).run()


@pytest.mark.parametrize("tasks", [1, 2])
def test_each_step_sees_its_samples_whatever_the_number_of_tasks(tmp_path, pico_llama, math, tasks):
    from mergebench.training.examples import encode, read_rows
    from mergebench.training.models import load_tokenizer
    from mergebench.training.settings import SftSettings
    from mergebench.training.sft import plan
    from mergebench.training.templates import use_template

    settings = SftSettings(**SPEC["settings"])
    tokenizer = use_template(load_tokenizer(pico_llama), settings.template)
    examples = encode(tokenizer, read_rows(math.with_name("train.jsonl"), ("id", "prompt", "response")), settings.max_length)
    order = plan([examples], settings, SPEC["seed"])
    batches = [order[i : i + settings.batch_size] for i in range(0, len(order), settings.batch_size)]
    expected = {step: sorted(examples[i].input_ids for i in batch) for step, batch in enumerate(batches)}
    assert len(expected) == 6
    assert Training(tmp_path, pico_llama, SPEC, tasks, data=math).recorded(tasks).seen("rows") == expected


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


def test_grpo_shares_its_prompts(tmp_path, pico_llama):
    data = write_rows(tmp_path / "train_math_grpo", sums(60))
    settings = {"steps": 2, "prompts": 4, "generations": 4, "learning_rate": 1e-3, "max_completion_length": 6, "log_every": 1}
    spec = {"base": "pico", "model": "specialist_math", "algorithm": "grpo", "domains": ["math"], "grpo": settings, "seed": 0}
    runs = [Training(tmp_path / str(n), pico_llama, spec, n, grpo_data=data).recorded(n) for n in (1, 2)]
    prompts = [run.seen("prompts") for run in runs]
    assert [len(values) for values in prompts[0].values()] == [16, 16]
    assert prompts[1] == prompts[0]


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


LONG = sft_spec(30, checkpoint_seconds=1e-6)


def test_signals_and_kills_of_all_tasks_leave_the_result_as_it_is(tmp_path, pico_llama, math):
    whole = Training(tmp_path / "whole", pico_llama, LONG, 2, data=math).run()
    broken = Training(tmp_path / "broken", pico_llama, LONG, 2, data=math)

    warned = broken.start()
    await_training(warned)
    os.kill(task(warned, 1), signal.SIGUSR1)
    _, errors = warned.communicate(timeout=180)
    assert warned.returncode == 75, errors
    (checkpoint,) = broken.state.glob("train-*/checkpoints/*/complete.json")
    assert "rng_state_1.pth" in json.loads(checkpoint.read_text())["files"]

    killed = broken.start()
    while checkpoint.exists():
        assert killed.poll() is None
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not broken.out.joinpath("manifest.json").exists()

    broken.run()
    assert broken.manifest == whole.manifest
    assert inventory(broken.out) == inventory(whole.out)
    ends = broken.cost["attempts"]["ends"]
    assert [end["reason"].split(":")[0] for end in ends] == ["SIGUSR1", "unknown"]
    assert broken.cost["attempts"]["failed"] == 2
    assert broken.cost["run"]["attempt"] == 3


def test_a_signal_to_the_launcher_reaches_the_tasks(tmp_path, pico_llama, math):
    launcher = (run := Training(tmp_path, pico_llama, LONG, 2, data=math)).start()
    await_training(launcher)
    launcher.send_signal(signal.SIGTERM)
    _, errors = launcher.communicate(timeout=180)
    assert launcher.returncode == 75, errors
    assert len(list(run.state.glob("train-*/checkpoints/*/complete.json"))) == 1
    assert [json.loads(line)["reason"] for line in next(run.state.glob("train-*/attempts.jsonl")).open()] == ["SIGTERM"]


def test_a_task_that_is_killed_ends_the_others_at_once(tmp_path, pico_llama, math):
    launcher = Training(tmp_path, pico_llama, LONG, 2, data=math).start()
    await_training(launcher)
    other = task(launcher, 0)
    start = time.monotonic()
    os.kill(task(launcher, 1), signal.SIGKILL)
    _, errors = launcher.communicate(timeout=180)
    assert time.monotonic() - start < 30, "a collective alone would wait for half an hour"
    assert launcher.returncode == 1
    assert "One of 2 tasks was killed by SIGKILL" in errors
    assert not Path(f"/proc/{other}").exists()


def test_the_error_of_a_task_is_the_jobs(tmp_path, pico_llama, math):
    spec = sft_spec(2, batch_size=6, micro_batch_size=2)
    launcher = Training(tmp_path, pico_llama, spec, 2, data=math).start()
    _, errors = launcher.communicate(timeout=180)
    assert launcher.returncode == 1
    assert re.search(r"mergebench: task \d of 2 on \S+: 6 samples a step do not divide into 2 processes x micro-batches of 2", errors)
    assert errors.count("do not divide") == 1


def test_tasks_end_when_their_launcher_is_killed(tmp_path, pico_llama, math):
    launcher = Training(tmp_path, pico_llama, LONG, 2, data=math).start()
    await_training(launcher)
    tasks = [task(launcher, rank) for rank in (0, 1)]
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text() for pid in tasks):
        assert time.monotonic() < deadline, "a task trains on"
        time.sleep(0.1)
