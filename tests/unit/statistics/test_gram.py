"""Gram matrices against X^T X of inputs that are recorded independently."""

import pytest
import torch

from mergebench.merging.statistics.gram import Gram
from mergebench.training.models import load_model


@pytest.fixture
def model(pico_base):
    return load_model(pico_base)


def _explicit(model, examples):
    """X^T X / N in float64 from unpadded single rows, each linear layer on its own."""
    inputs = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: inputs.setdefault(f"{name}.weight", []).append(args[0][0].double()))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    with torch.no_grad():
        for example in examples:
            model(torch.tensor([example.input_ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    stacked = {name: torch.cat(rows) for name, rows in inputs.items()}
    return {name: x.T @ x / len(x) for name, x in stacked.items()}


@pytest.mark.parametrize("accumulate", ["float32", "float64"])
def test_every_linear_layer_equals_the_explicit_product(model, examples, accumulate):
    expected = _explicit(model, examples)
    with Gram(model, 0, accumulate) as gram:
        gram.add(examples, batch_size=5)
    measured = gram.result()
    tied = set() if "lm_head.weight" in dict(model.named_parameters()) else {"lm_head.weight"}
    assert measured.keys() | gram.aliases.keys() == expected.keys() - tied
    for name in expected.keys() - tied:
        value = measured[gram.aliases.get(name, name)]
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-5)


def test_shared_inputs_are_stored_once(model, examples):
    with Gram(model, 0) as gram:
        gram.add(examples[:4])
    layer = "model.layers.1"
    assert gram.aliases[f"{layer}.self_attn.k_proj.weight"] == f"{layer}.self_attn.q_proj.weight"
    assert gram.aliases[f"{layer}.self_attn.v_proj.weight"] == f"{layer}.self_attn.q_proj.weight"
    assert gram.aliases[f"{layer}.mlp.up_proj.weight"] == f"{layer}.mlp.gate_proj.weight"
    assert not gram.aliases.keys() & gram.result().keys()


def test_padding_and_batch_size_change_nothing(pico_base, examples):
    results = []
    for batch_size in (1, 12):
        with Gram(load_model(pico_base), 0) as gram:
            gram.add(examples, batch_size)
        assert gram.tokens == sum(len(example.input_ids) for example in examples)
        results.append(gram.result())
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-4, atol=1e-6)


def test_a_tied_head_has_no_matrix_of_its_own(model, examples):
    with Gram(model, 0) as gram:
        gram.add(examples[:2])
    own = "lm_head.weight" in dict(model.named_parameters())
    assert ("lm_head.weight" in gram.result()) == own


def test_hooks_are_removed_and_the_model_is_unchanged(model, examples):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with Gram(model, 0) as gram:
        gram.add(examples[:2])
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
