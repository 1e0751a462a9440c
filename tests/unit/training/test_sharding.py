"""Two processes with DDP, ZeRO-2 and ZeRO-3: the samples, losses and weights of one process, interruptions survived."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mergebench import launch
from mergebench.artifacts import execute
from mergebench.training import run as stage
from tests.unit.training.pico import sft_spec, sums, training_job, words, write_pico, write_rows

ROOT = Path(__file__).parents[3]
STEPS = 5
LORA = {"rank": 4, "alpha": 8}


def sft(**settings):
    return sft_spec(STEPS, log_every=1, packing=True, **settings)


def grpo(**settings):
    values = {"steps": 3, "prompts": 4, "generations": 4, "learning_rate": 1e-3, "max_completion_length": 6, "log_every": 1}
    return {"base": "pico", "model": "specialist_math", "algorithm": "grpo", "domains": ["math"], "grpo": values | settings, "seed": 0}


class Session:
    """What two processes made of some cases, each of which is a family, a spec and perhaps an interruption."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bases = {family: write_pico(folder / family / "weights", family) for family in ("llama", "gemma2")}
        # Responses have from one to nine tokens, so that two processes hold different numbers of them.
        self.data = {"data": [write_rows(folder / "train_math", sums(40) + words(40))]}
        self.grpo_data = {"data": [], "grpo_data": [write_rows(folder / "train_math_grpo", sums(60))]}
        self.cases: list[dict] = []

    def inputs(self, family, spec):
        rows = self.data if spec["algorithm"] == "sft" else self.grpo_data
        return {"base": [self.bases[family]]} | rows

    def add(self, name, family, spec, folder=None, **rest):
        inputs = {key: [str(path) for path in paths] for key, paths in self.inputs(family, spec).items()}
        self.cases.append({"name": name, "spec": spec, "inputs": inputs, "folder": str(self.folder / (folder or name)), **rest})

    def add_interrupted(self, name, family, spec, interrupt):
        """The same job three times: whole; until a signal; and from there to the end."""
        self.add(name, family, spec)
        self.add("first", family, spec, f"{name}-broken", interrupt=interrupt)
        self.add("second", family, spec, f"{name}-broken")

    def run(self):
        path = self.folder / "cases.json"
        path.write_text(json.dumps(self.cases))
        port = launch._free_port()
        command = [sys.executable, "-m", "tests.unit.training.session", str(path)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        started = [subprocess.Popen(command, env={**environment, **launch.local_place(rank, 2, port)}) for rank in range(2)]
        failure = launch._first_failure(started)
        for process in started:
            process.kill()
        assert failure == 0
        return self

    def alone(self, name, family, spec):
        """The same job by this process."""
        out = self.folder / f"{name}-alone"
        execute(stage, training_job(spec, out, out / "state", **self.inputs(family, spec)))
        return out

    def records(self, name, folder=None):
        return [json.loads((self.folder / (folder or name) / f"{name}.{rank}.json").read_text()) for rank in range(2)]

    def seen(self, name, kind):
        """What entered each step, over both processes, in a canonical order."""
        found: dict[int, list] = {}
        for record in self.records(name):
            for step, value in record["seen"].get(kind, []):
                found.setdefault(step, []).append(value)
        return {step: sorted(values) for step, values in found.items()}


def losses(out):
    return [json.loads(line)["loss"] for line in (out / "losses.jsonl").read_text().splitlines()]


def weights(out):
    from safetensors.torch import load_file

    return load_file(out / "weights/model.safetensors")


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    session = Session(tmp_path_factory.mktemp("session"))
    session.add("ddp", "llama", sft())
    session.add("padded", "llama", sft_spec(3, micro_batch_size=2))
    session.add("grpo", "llama", grpo(steps=2))
    session.add_interrupted("zero2", "llama", sft(sharding="zero2", activation_checkpointing="full"), [1, 3])
    session.add_interrupted("zero3", "gemma2", sft(sharding="zero3"), [0, 2])
    session.add_interrupted("grpo-zero3", "llama", grpo(sharding="zero3", beta=0.04), [1, 1])
    session.add("grpo-zero2", "gemma2", grpo(sharding="zero2", steps=1))
    session.add("lora-zero3", "llama", sft(sharding="zero3", lora=LORA))
    session.add("half-zero2", "llama", sft(sharding="zero2", dtype="bfloat16"))
    session.add("offload-zero3", "llama", sft(sharding="zero3", offload="optimizer"))
    return session.run()


@pytest.fixture(scope="module")
def alone(session):
    return {family: session.alone(family, family, sft()) for family in ("llama", "gemma2")}


@pytest.mark.parametrize(("name", "family"), [("ddp", "llama"), ("zero2", "llama"), ("zero3", "gemma2"), ("offload-zero3", "llama")])
def test_two_processes_have_the_losses_and_weights_of_one(session, alone, name, family):
    import torch

    assert losses(session.folder / name) == pytest.approx(losses(alone[family]), rel=1e-5)
    ours, theirs = weights(session.folder / name), weights(alone[family])
    assert ours.keys() == theirs.keys()
    for key, one in theirs.items():
        torch.testing.assert_close(ours[key], one, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name", ["zero2", "zero3", "grpo-zero3"])
def test_a_signal_to_one_process_saves_all_and_the_next_run_ends_the_same(session, name):
    import torch

    broken = f"{name}-broken"
    assert [record["status"] for record in session.records("first", broken)] == [75, 75]
    assert [record["status"] for record in session.records("second", broken)] == [0, 0]
    resumed = session.records("second", broken)[0]["facts"]
    assert resumed == session.records(name)[0]["facts"]
    assert (session.folder / broken / "losses.jsonl").read_text() == (session.folder / name / "losses.jsonl").read_text()
    for key, whole in weights(session.folder / name).items():
        torch.testing.assert_close(weights(session.folder / broken)[key], whole, rtol=0, atol=0)


def test_each_step_sees_its_samples_whatever_the_number_of_processes(session):
    from mergebench.training.examples import encode, read_rows
    from mergebench.training.models import load_tokenizer
    from mergebench.training.samples import Joined, Listed
    from mergebench.training.settings import SftSettings
    from mergebench.training.sft import schedule
    from mergebench.training.templates import use_template

    for name in ("padded", "ddp"):
        spec = next(case["spec"] for case in session.cases if case["name"] == name)
        settings = SftSettings(**spec["settings"])
        tokenizer = use_template(load_tokenizer(session.bases["llama"]), settings.template)
        rows = read_rows(session.data["data"][0].with_name("train.jsonl"), ("id", "prompt", "response"))
        samples = Joined([Listed(encode(tokenizer, rows, settings.max_length))])
        plan = schedule(samples, settings, spec["seed"])
        steps = [plan.rows[i : i + plan.per_step] for i in range(0, len(plan.rows), plan.per_step)]
        expected = {step: sorted(samples[i].input_ids for row in rows for i in row) for step, rows in enumerate(steps)}
        assert {len(values) for values in expected.values()} == {settings.batch_size}
        assert session.seen(name, "rows") == expected


def test_grpo_shares_its_prompts(session):
    shared = session.seen("grpo", "prompts")
    assert [len(values) for values in shared.values()] == [16, 16]
    assert all(values[0::4] == values[3::4] for values in shared.values()), "each prompt has its four completions"


def test_grpo_trains_under_zero_and_its_export_is_complete(session):
    base = weights_of(session.bases["gemma2"])
    trained = weights(session.folder / "grpo-zero2")
    assert {name: tensor.shape for name, tensor in trained.items()} == {name: tensor.shape for name, tensor in base.items()}


def test_merged_adapters_move_only_the_layers_that_they_adapt(session):
    import torch

    base, trained = weights_of(session.bases["llama"]), weights(session.folder / "lora-zero3")
    moved = {name for name, tensor in trained.items() if not torch.equal(tensor, base[name])}
    assert moved == {name for name in base if "_proj" in name}
    for name in moved:
        assert torch.linalg.matrix_rank(trained[name] - base[name], atol=1e-6) <= LORA["rank"]


def test_half_precision_keeps_small_updates(session, alone):
    """The exported weights are the optimizer's float32 ones, not their bfloat16 copies."""
    import torch

    trained = weights(session.folder / "half-zero2")
    rounded = [torch.equal(tensor, tensor.bfloat16().float()) for tensor in trained.values()]
    assert not all(rounded)
    assert losses(session.folder / "half-zero2") == pytest.approx(losses(alone["llama"]), rel=0.02)


def weights_of(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")
