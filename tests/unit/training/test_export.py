"""Export: what is written equals the base in everything but the weights; bad weights are refused."""

import json

import pytest
import torch
from safetensors.torch import load_file

from mergebench.errors import MergebenchError
from mergebench.training.export import export_weights
from mergebench.training.models import load_model


@pytest.fixture
def state(pico_llama):
    return {name: tensor.clone() for name, tensor in load_model(pico_llama).state_dict().items()}


def test_everything_but_the_weights_is_the_bases_byte_for_byte(pico_base, tmp_path):
    export_weights(load_model(pico_base).state_dict(), pico_base, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in pico_base.iterdir()}
    for file in pico_base.iterdir():
        if file.suffix != ".safetensors":
            assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_the_relative_norm_is_that_of_the_task_vector(state, pico_llama, tmp_path):
    report = export_weights({name: tensor * 1.5 for name, tensor in state.items()}, pico_llama, tmp_path)
    assert report.relative_norm == pytest.approx(0.5, abs=1e-6)
    assert report.parameters == sum(tensor.numel() for tensor in state.values())


def test_another_dtype_is_written_and_stated(state, pico_llama, tmp_path):
    export_weights(state, pico_llama, tmp_path, "bfloat16")
    assert {t.dtype for t in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"


def _drop(state):
    del state["model.norm.weight"]


def _add(state):
    state["model.extra.weight"] = torch.zeros(3)


def _grow(state):
    state["lm_head.weight"] = torch.cat([state["lm_head.weight"], torch.zeros(2, 32)])


def _empty(state):
    state["model.norm.weight"] = torch.zeros(0)


def _break(state):
    state["model.norm.weight"][3] = float("nan")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop, "lack 1 tensors"),
        (_add, "'model.extra.weight' first"),
        (_grow, "lm_head.weight has shape"),
        (_empty, "model.norm.weight has shape"),
        (_break, "NaN or infinite"),
    ],
)
def test_bad_weights_are_refused_before_anything_is_written(state, pico_llama, tmp_path, damage, message):
    damage(state)
    with pytest.raises(MergebenchError, match=message):
        export_weights(state, pico_llama, tmp_path)
    assert not list(tmp_path.iterdir())
