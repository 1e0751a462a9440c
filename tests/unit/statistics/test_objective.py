"""The loss on responses: that of transformers, however many tokens the head gets at a time."""

import pytest
import torch

from mergebench.merging.statistics import objective
from mergebench.merging.statistics.objective import recompute_layers, response_loss
from mergebench.training.examples import IGNORED, collate
from mergebench.training.models import load_model


def gradients(model, rows):
    loss = response_loss(model, rows, 0)
    return loss, torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("tokens", [1, 7, 1024])
def test_the_loss_is_that_of_transformers(pico_base, examples, tokens, monkeypatch):
    monkeypatch.setattr(objective, "TOKENS", tokens)
    model, batch = load_model(pico_base, dtype=torch.float64), collate(examples, 0)
    predicted = int((batch["labels"][:, 1:] != IGNORED).sum())
    expected = model(**batch, use_cache=False).loss * predicted
    loss, found = gradients(model, examples)
    torch.testing.assert_close(loss, expected.double(), rtol=1e-5, atol=0)  # theirs is float32
    for gradient, reference in zip(found, torch.autograd.grad(expected, list(model.parameters())), strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-6 * float(reference.abs().max()) + 1e-12)


def test_recomputed_layers_change_no_bit_and_stay_in_evaluation_mode(pico_base, examples):
    plain, recomputing = load_model(pico_base).eval(), load_model(pico_base).eval()
    recompute_layers(recomputing)
    calls = []
    for layer in recomputing.model.layers:
        layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    loss, found = gradients(plain, examples[:4])
    again, recomputed = gradients(recomputing, examples[:4])
    assert torch.equal(loss, again)
    assert all(torch.equal(a, b) for a, b in zip(found, recomputed, strict=True))
    assert len(calls) == 2 * len(recomputing.model.layers)
    assert not any(module.training for layer in recomputing.model.layers for module in layer.children())
