"""Adapters: the merged export is the base plus alpha / rank * B A, as PEFT itself merges it."""

import pytest
import torch

from mergebench.errors import MergebenchError
from mergebench.training.lora import merged, peft_config
from mergebench.training.models import load_model
from mergebench.training.settings import LoraSettings

SETTINGS = LoraSettings(rank=3, alpha=12)


@pytest.fixture
def adapted(pico_base):
    """A model whose adapters are not zero."""
    from peft import get_peft_model

    model = get_peft_model(load_model(pico_base), peft_config(SETTINGS))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    return model


def test_the_merged_weights_are_those_that_peft_merges(adapted, pico_base):
    ours = {name: tensor.clone() for name, tensor in merged(adapted.state_dict(), SETTINGS).items()}
    theirs = adapted.merge_and_unload().state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=1e-6)
    base = load_model(pico_base).state_dict()
    assert {name for name in base if not torch.equal(base[name], ours[name])} == {name for name in base if "_proj" in name}


def test_a_product_is_added_with_its_scale(adapted):
    state = adapted.state_dict()
    where = "base_model.model.model.layers.0.mlp.up_proj"
    a, b = (state[f"{where}.lora_{half}.default.weight"].double() for half in "AB")
    expected = state[f"{where}.base_layer.weight"].double() + 4 * b @ a
    torch.testing.assert_close(merged(state, SETTINGS)["model.layers.0.mlp.up_proj.weight"].double(), expected, rtol=1e-5, atol=1e-6)


def test_half_an_adapter_is_refused(adapted):
    state = dict(adapted.state_dict())
    del state["base_model.model.model.layers.0.mlp.up_proj.lora_B.default.weight"]
    with pytest.raises(MergebenchError, match="up_proj lacks"):
        merged(state, SETTINGS)
