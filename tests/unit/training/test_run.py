"""Whole training jobs on two-layer models: they learn, repeat themselves, and survive interruption."""

import json
import os
import signal

import pytest

from mergebench.artifacts import execute, inventory
from mergebench.errors import MergebenchError
from mergebench.training import run as stage
from mergebench.training.watch import Watch
from tests.unit.training.pico import sft_spec, sums, training_job, words, write_rows


@pytest.fixture(scope="module")
def math(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "train_math", sums(60))


def train(spec, base, math, out, **inputs):
    execute(stage, training_job(spec, out, out / "state", base=base, **({"data": [math]} | inputs)))
    return json.loads((out / "manifest.json").read_text())


def losses(out):
    return [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]


def test_sft_lowers_the_loss(pico_base, math, tmp_path):
    facts = train(sft_spec(30), pico_base, math, tmp_path)
    log = losses(tmp_path)
    assert [entry["step"] for entry in log] == list(range(2, 31, 2))
    assert log[-1]["loss"] < log[0]["loss"] - 1.0
    assert facts["final_loss"] == round(log[-1]["loss"], 4)
    assert 0.01 < facts["relative_norm"] < 1


def test_the_same_spec_gives_the_same_weights(pico_base, math, tmp_path):
    first = train(sft_spec(), pico_base, math, tmp_path / "a")
    second = train(sft_spec(), pico_base, math, tmp_path / "b")
    other = train(sft_spec() | {"seed": 2}, pico_base, math, tmp_path / "c")
    assert first == second
    assert first["weights_digest"] != other["weights_digest"]


def test_the_base_is_left_as_it_was(pico_base, math, tmp_path):
    before = inventory(pico_base)
    train(sft_spec(2), pico_base, math, tmp_path)
    assert inventory(pico_base) == before


def test_micro_batches_do_not_change_the_loss(pico_base, math, tmp_path):
    train(sft_spec(2, log_every=1), pico_base, math, tmp_path / "whole")
    train(sft_spec(2, log_every=1, micro_batch_size=2), pico_base, math, tmp_path / "micro")
    assert losses(tmp_path / "micro")[1]["loss"] == pytest.approx(losses(tmp_path / "whole")[1]["loss"], abs=1e-4)


@pytest.mark.parametrize("kept", ["selective", "full"])
def test_what_is_computed_again_does_not_change_the_loss(pico_base, math, tmp_path, kept):
    train(sft_spec(3, log_every=1, packing=True), pico_base, math, tmp_path / "kept")
    train(sft_spec(3, log_every=1, packing=True, activation_checkpointing=kept), pico_base, math, tmp_path / "again")
    assert [line["loss"] for line in losses(tmp_path / "again")] == pytest.approx(
        [line["loss"] for line in losses(tmp_path / "kept")], abs=1e-5
    )


def test_packs_fill_the_steps(pico_llama, math, tmp_path):
    spec = sft_spec(packing=True, batch_unit="packs", batch_size=2, max_length=128)
    del spec["settings"]["steps"]
    facts = train(spec | {"settings": spec["settings"] | {"epochs": 1}}, pico_llama, math, tmp_path)
    assert facts["samples_seen"] == 60
    assert facts["tokens_seen"] == facts["tokens"]
    assert facts["steps"] == 15  # samples of 44 to 47 tokens: two of them fit into a row


def test_packed_rows_do_not_see_each_other(pico_base, math, tmp_path):
    train(sft_spec(2, log_every=1), pico_base, math, tmp_path / "padded")
    train(sft_spec(2, log_every=1, packing=True), pico_base, math, tmp_path / "packed")
    for padded, packed in zip(losses(tmp_path / "padded"), losses(tmp_path / "packed"), strict=True):
        assert packed["loss"] == pytest.approx(padded["loss"], abs=1e-4)


def test_a_signal_saves_and_the_next_run_ends_the_same(pico_base, math, tmp_path, monkeypatch):
    whole = train(sft_spec(), pico_base, math, tmp_path / "whole")
    report = Watch.on_step_end

    def interrupt(self, args, state, control, **rest):
        report(self, args, state, control, **rest)
        if state.global_step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "interrupted"
    monkeypatch.setattr(Watch, "on_step_end", interrupt)
    with pytest.raises(SystemExit) as left:
        train(sft_spec(), pico_base, math, out)
    assert left.value.code == 75
    assert not (out / "weights").exists()
    saved = [p.name for p in (out / "state" / "checkpoints").glob("checkpoint-*")]
    assert saved in (["checkpoint-5"], ["checkpoint-6"])

    monkeypatch.setattr(Watch, "on_step_end", report)
    resumed = train(sft_spec(), pico_base, math, out)
    assert resumed == whole
    assert losses(out) == losses(tmp_path / "whole")


def test_adapters_learn_and_resume(pico_llama, math, tmp_path, monkeypatch):
    spec = sft_spec(lora={"rank": 4, "alpha": 8}, learning_rate=1e-2, log_every=1)
    whole = train(spec, pico_llama, math, tmp_path / "whole")
    assert losses(tmp_path / "whole")[-1]["loss"] < losses(tmp_path / "whole")[0]["loss"] - 0.1
    report = Watch.on_step_end

    def interrupt(self, args, state, control, **rest):
        if state.global_step == 5:
            os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(Watch, "on_step_end", interrupt)
    with pytest.raises(SystemExit):
        train(spec, pico_llama, math, tmp_path / "interrupted")
    monkeypatch.setattr(Watch, "on_step_end", report)
    assert train(spec, pico_llama, math, tmp_path / "interrupted") == whole


def test_a_killed_run_goes_on_from_its_last_periodic_checkpoint(pico_llama, math, tmp_path, monkeypatch):
    spec = sft_spec(checkpoint_seconds=1e-6)
    whole = train(spec, pico_llama, math, tmp_path / "whole")
    report = Watch.on_step_end

    def die(self, args, state, control, **rest):
        if state.global_step == 7:
            raise KeyboardInterrupt

    out = tmp_path / "killed"
    monkeypatch.setattr(Watch, "on_step_end", die)
    with pytest.raises(KeyboardInterrupt):
        train(spec, pico_llama, math, out)
    assert [p.name for p in (out / "state" / "checkpoints").glob("checkpoint-*")] == ["checkpoint-6"]
    monkeypatch.setattr(Watch, "on_step_end", report)
    assert train(spec, pico_llama, math, out) == whole


def test_multitask_trains_on_all_domains(pico_llama, math, tmp_path):
    chat = write_rows(tmp_path / "train_instruction", words(20))
    spec = sft_spec(6, mixture="balanced") | {"model": "multitask", "domains": ["instruction", "math"]}
    facts = train(spec, pico_llama, math, tmp_path / "out", data=[chat, math])
    assert facts["rows"] == {"instruction": 20, "math": 60}
    assert facts["steps"] == 6


def test_epochs_are_turned_into_steps(pico_llama, math, tmp_path):
    spec = sft_spec()
    spec["settings"] = {k: v for k, v in spec["settings"].items() if k != "steps"} | {"epochs": 0.5}
    assert train(spec, pico_llama, math, tmp_path)["steps"] == 4  # 0.5 * 60 rows / 8 a step, rounded up


def test_data_of_another_domain_is_refused(pico_llama, tmp_path):
    coding = write_rows(tmp_path / "train_coding", sums(8))
    with pytest.raises(MergebenchError, match="expected the folder train_math"):
        train(sft_spec(), pico_llama, coding, tmp_path / "out")


def test_a_diverging_run_stops_with_a_sentence(pico_llama, math, tmp_path):
    with pytest.raises(MergebenchError, match=r"loss became|NaN or infinite"):
        train(sft_spec(8, learning_rate=1e30, log_every=1, schedule="constant", max_grad_norm=1e30), pico_llama, math, tmp_path)


def grpo_spec(**settings):
    return {
        "base": "pico",
        "model": "specialist_math",
        "algorithm": "grpo",
        "domains": ["math"],
        "grpo": {
            "steps": 20,
            "prompts": 8,
            "generations": 8,
            "learning_rate": 2e-3,
            "schedule": "constant",
            "max_completion_length": 8,
            "log_every": 1,
        }
        | settings,
        "seed": 0,
    }


@pytest.fixture(scope="module")
def grpo_rows(tmp_path_factory):
    """Data whose right answer is always 7, so that a two-layer model can find it; SFT shows all digits."""
    rows = [row | {"answer": "7", "response": f"#### {i % 10}"} for i, row in enumerate(sums(60))]
    folder = tmp_path_factory.mktemp("grpo")
    return write_rows(folder / "train_math", rows), write_rows(folder / "train_math_grpo", rows)


def test_grpo_raises_its_reward_on_top_of_sft(pico_llama, grpo_rows, tmp_path):
    supervised = train(sft_spec(60, learning_rate=1e-2), pico_llama, grpo_rows[0], tmp_path / "sft")
    init = tmp_path / "sft" / "weights"
    facts = train(grpo_spec(), pico_llama, None, tmp_path / "grpo", data=[], init=init, grpo_data=grpo_rows[1])
    rewards = [entry["reward"] for entry in losses(tmp_path / "grpo")]
    assert sum(rewards[-5:]) > 1.5 * sum(rewards[:5])
    assert facts["steps"] == 20
    assert facts["relative_norm"] != supervised["relative_norm"]


def test_vllm_is_refused_where_it_cannot_run(pico_llama, grpo_rows, tmp_path):
    with pytest.raises(MergebenchError, match="vllm needs the package vllm and a GPU"):
        train(grpo_spec(vllm=True), pico_llama, None, tmp_path, data=[], grpo_data=grpo_rows[1])


def test_grpo_leaves_out_the_rows_of_the_report(pico_llama, grpo_rows, tmp_path):
    hits = tmp_path / "hits.jsonl"
    hits.write_text("".join(json.dumps({"id": row["id"]}) + "\n" for row in sums(50)))
    facts = train(grpo_spec(steps=1), pico_llama, None, tmp_path / "out", data=[], grpo_data=grpo_rows[1], hits=hits)
    assert facts["rows"] == {"math": 10}


def test_grpo_resumes_to_the_same_weights(pico_base, grpo_rows, tmp_path, monkeypatch):
    spec = grpo_spec(steps=3, prompts=4, generations=4, temperature=0.7)
    inputs = {"data": [], "grpo_data": grpo_rows[1]}
    whole = train(spec, pico_base, None, tmp_path / "whole", **inputs)
    report = Watch.on_step_end

    def interrupt(self, args, state, control, **rest):
        if state.global_step == 1:
            os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(Watch, "on_step_end", interrupt)
    with pytest.raises(SystemExit):
        train(spec, pico_base, None, tmp_path / "interrupted", **inputs)
    monkeypatch.setattr(Watch, "on_step_end", report)
    assert train(spec, pico_base, None, tmp_path / "interrupted", **inputs) == whole
