"""Gram matrices against X^T X of inputs that are recorded independently, in float64."""

import pytest
import torch

from mergebench.artifacts import Job
from mergebench.checkpoints.reader import Checkpoint
from mergebench.merging.statistics import gram
from mergebench.merging.statistics.decoder import StagedDecoder
from mergebench.merging.statistics.parts import Parts
from mergebench.merging.statistics.settings import Execution, GramSettings
from mergebench.merging.statistics.task import Task
from mergebench.training.models import load_model
from mergebench.training.preemption import Preempted, Signals
from tests.unit.statistics.grams import error, explicit

KEY = "0" * 64


@pytest.fixture
def few_lanes(monkeypatch):
    """Several of a dozen rows in a lane, so that batches have more than one and padding."""
    monkeypatch.setattr("mergebench.merging.statistics.sums.LANES", 2)


def task(folder, examples, state, *, batch_rows=3, save_seconds=600, **settings) -> Task:
    """A task of these rows in this process."""
    checkpoint = Checkpoint(folder)
    parts = Parts(state / "gram", KEY)
    parts.begin()
    job = Job("statistics", {}, {}, {}, state)
    execution = Execution(batch_rows=batch_rows, save_seconds=save_seconds)
    return Task(job, "gram", GramSettings(**settings), execution, checkpoint, checkpoint, None, examples, 0, parts, Signals())


def measured(task: Task) -> dict[str, torch.Tensor]:
    """Every linear layer's matrix, shared ones under each of their names."""
    found = gram.measure(task)
    files = {name: task.parts.tensors(unit) for unit in found.units for name in task.parts.tensors(unit).tensors}
    stored = {name: file.tensor(name).clone() for name, file in files.items()}
    return stored | {name: stored[first] for name, first in found.aliases.items()}


@pytest.fixture(scope="module")
def expected(pico_base, examples):
    return explicit(load_model(pico_base, dtype=torch.float64), examples)


@pytest.mark.parametrize("accumulate", ["float32", "float64"])
def test_every_linear_layer_equals_the_explicit_product(pico_base, examples, expected, tmp_path, few_lanes, accumulate):
    found = measured(task(pico_base, examples, tmp_path, accumulate=accumulate))
    assert found.keys() == expected.keys()
    assert max(error(found[name], expected[name]) for name in expected) < 3e-6


def test_a_bfloat16_pass_is_that_of_a_bfloat16_model(pico_base, examples, expected, tmp_path):
    found = measured(task(pico_base, examples, tmp_path, dtype="bfloat16"))
    half = explicit(load_model(pico_base, dtype=torch.bfloat16), examples)
    assert max(error(found[name], half[name]) for name in expected) < 0.02
    assert max(error(found[name], expected[name]) for name in expected) > 1e-4


def test_long_sums_lose_nothing_that_matters():
    """A common offset that is a thousand times the variation, which a running mean in bfloat16 would lose."""
    generator = torch.Generator().manual_seed(0)
    inputs = 1000 + torch.randn(30_000, 5, generator=generator)
    total = torch.zeros(5, 5, dtype=torch.float64)
    for part in inputs.split(700):
        gram.add_products(total, part)
    found = gram.mean(total, len(inputs))
    exact = inputs.double().T @ inputs.double() / len(inputs)
    assert error(found, exact) < 2e-7
    centred = found.double() - inputs.double().mean(0).outer(inputs.double().mean(0))
    assert torch.allclose(centred.diagonal(), torch.ones(5, dtype=torch.float64), atol=0.2)


def test_products_in_blocks_are_whole_and_symmetric(monkeypatch):
    monkeypatch.setattr(gram, "PRODUCT_COLUMNS", 3)
    monkeypatch.setattr(gram, "PRODUCT_ROWS", 4)
    inputs = torch.randn(10, 8, generator=torch.Generator().manual_seed(0))
    total = torch.zeros(8, 8, dtype=torch.float64)
    gram.add_products(total, inputs)
    found = gram.mean(total, 10)
    assert torch.equal(found, found.T)
    torch.testing.assert_close(found, inputs.T @ inputs / 10)


def test_shared_inputs_are_stored_once(pico_base, examples, tmp_path):
    asked = task(pico_base, examples[:4], tmp_path)
    found = gram.measure(asked)
    layer = "model.layers.1"
    assert found.aliases[f"{layer}.self_attn.k_proj.weight"] == f"{layer}.self_attn.q_proj.weight"
    assert found.aliases[f"{layer}.self_attn.v_proj.weight"] == f"{layer}.self_attn.q_proj.weight"
    assert found.aliases[f"{layer}.mlp.up_proj.weight"] == f"{layer}.mlp.gate_proj.weight"
    assert f"{layer}.self_attn.o_proj.weight" not in found.aliases
    assert not found.aliases.keys() & {name for unit in found.units for name in asked.parts.tensors(unit).tensors}


def test_padding_and_batch_size_change_nothing(pico_base, examples, tmp_path, few_lanes):
    alone, together = (measured(task(pico_base, examples, tmp_path / str(rows), batch_rows=rows)) for rows in (1, 6))
    for name, value in alone.items():
        assert error(together[name], value.double()) < 2e-6


def test_the_order_of_the_rows_changes_nothing(pico_base, examples, tmp_path):
    forth, back = (measured(task(pico_base, rows, tmp_path / str(i))) for i, rows in enumerate((examples, examples[::-1])))
    assert all(torch.equal(forth[name], back[name]) for name in forth)


def test_a_tied_head_has_no_matrix_of_its_own(pico_base, examples, tmp_path):
    own = "lm_head.weight" in dict(load_model(pico_base).named_parameters())
    assert ("lm_head.weight" in measured(task(pico_base, examples[:2], tmp_path))) == own


def test_one_layer_s_weights_are_in_memory(pico_base, examples, tmp_path, monkeypatch):
    held = []

    def watch(decoder, stage, hidden, original=StagedDecoder.layer):
        real = {name for name, (module, leaf) in decoder._owners.items() if module._parameters[leaf].device.type != "meta"}
        held.append({name.split(".")[2] if "layers" in name else name for name in real})
        return original(decoder, stage, hidden)

    monkeypatch.setattr(StagedDecoder, "layer", watch)
    gram.measure(task(pico_base, examples, tmp_path))
    assert {frozenset(names) for names in held} == {frozenset({"0"}), frozenset({"1"})}


class Stop(Exception):
    """Stands for a kill."""


def interrupted(pico_base, examples, state, monkeypatch, *, after, by_signal):
    """Begin, and be stopped after some batches, by a signal or without warning."""
    begun = task(pico_base, examples, state, batch_rows=2, save_seconds=0)
    done = []

    def add(*arguments, original=gram.add_layer):
        done.append(1)
        if len(done) == after:
            if not by_signal:
                raise Stop
            begun.signals.received = "SIGTERM"
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(gram, "add_layer", add)
        with pytest.raises(Preempted if by_signal else Stop):
            gram.measure(begun)


@pytest.mark.parametrize("by_signal", [True, False], ids=["signal", "kill"])
@pytest.mark.parametrize("after", [2, 5, 10])
def test_an_interrupted_task_goes_on_with_the_same_bits(pico_base, examples, tmp_path, monkeypatch, few_lanes, after, by_signal):
    """Two lanes of three batches in each of two layers."""
    whole = measured(task(pico_base, examples, tmp_path / "whole", batch_rows=2))
    interrupted(pico_base, examples, tmp_path / "cut", monkeypatch, after=after, by_signal=by_signal)
    added = []
    monkeypatch.setattr(gram, "add_layer", lambda *given, original=gram.add_layer: added.append(1) or original(*given))
    found = measured(task(pico_base, examples, tmp_path / "cut", batch_rows=2))
    assert len(added) == 2 * 2 * 3 - after + (0 if by_signal else 1)
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_lost_hidden_states_are_made_again(pico_base, examples, tmp_path, monkeypatch, few_lanes):
    whole = measured(task(pico_base, examples, tmp_path / "whole", batch_rows=2))
    interrupted(pico_base, examples, tmp_path / "cut", monkeypatch, after=10, by_signal=True)
    lost = list((tmp_path / "cut").rglob("hidden-*"))
    assert lost
    for path in lost:
        path.unlink()
    found = measured(task(pico_base, examples, tmp_path / "cut", batch_rows=2))
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_the_model_s_files_are_unchanged(pico_base, examples, tmp_path):
    before = {path.name: path.read_bytes() for path in pico_base.iterdir()}
    gram.measure(task(pico_base, examples[:2], tmp_path))
    assert {path.name: path.read_bytes() for path in pico_base.iterdir()} == before
