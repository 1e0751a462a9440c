"""Localize-and-Stitch masks: exact gradients, exact density, an untouched base."""

import pytest
import torch

from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.merging.statistics.mask import initial_logits, load_masked, logit_gradients, train_mask
from mergebench.training.examples import collate
from mergebench.training.models import load_model


@pytest.fixture
def parts(pico_base, pico_specialist):
    """Vessel model, base weights and task vector in double precision."""
    model = load_model(pico_specialist).double()
    checkpoint = Checkpoint(pico_base)
    base = {name: checkpoint.tensor(name).double() for name, _ in model.named_parameters()}
    return model, base, {name: p.detach() - base[name] for name, p in model.named_parameters()}


def test_the_gradient_equals_finite_differences(parts, examples):
    model, base, tau = parts
    tau = {name: 10 * t for name, t in tau.items()}
    torch.manual_seed(0)
    logits = {name: torch.randn_like(t) for name, t in tau.items()}
    batch = collate(examples[:4], 0)
    l1 = 1e-3

    def objective():
        loss, _ = logit_gradients(model, base, tau, logits, batch, 0.0)
        return loss + l1 * sum(float(s.sigmoid().sum()) for s in logits.values())

    _, gradients = logit_gradients(model, base, tau, logits, batch, l1)
    # Normalisation layers compute in float32, so single elements drown in rounding: differentiate along a direction.
    for name, gradient in gradients.items():
        noise = torch.randn_like(gradient)
        direction = gradient / gradient.norm() + 0.5 * noise / noise.norm()
        start, step = logits[name].clone(), 0.05
        logits[name].copy_(start + step * direction)
        above = objective()
        logits[name].copy_(start - step * direction)
        below = objective()
        logits[name].copy_(start)
        assert float((gradient * direction).sum()) == pytest.approx((above - below) / (2 * step), rel=5e-3, abs=1e-5)


def test_the_start_keeps_exactly_the_largest_share():
    tau = {"a": torch.tensor([[3.0, -5.0], [0.0, 1.0]]), "b": torch.tensor([5.0, -0.5, 2.0, 0.0, 5.0, 0.1])}
    logits = initial_logits(tau, density=0.4, bias=3.0)
    assert logits["a"].tolist() == [[3.0, 3.0], [-3.0, -3.0]]
    assert logits["b"].tolist() == [3.0, -3.0, -3.0, -3.0, 3.0, -3.0]


def test_ties_do_not_change_the_share():
    logits = initial_logits({"a": torch.ones(100)}, density=0.25, bias=1.0)
    assert int((logits["a"] > 0).sum()) == 25


def test_a_full_and_an_empty_mask_give_specialist_and_base(parts):
    model, base, tau = parts
    for sign, expected in ((40.0, {n: base[n] + tau[n] for n in base}), (-40.0, base)):
        load_masked(model, base, tau, {name: torch.full_like(t, sign) for name, t in tau.items()})
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.detach(), expected[name], rtol=0, atol=1e-12)


def _train(parts, examples, **changes):
    model, base, tau = parts
    settings = {"steps": 8, "batch_size": 4, "learning_rate": 10.0, "l1": 0.0, "density": 0.2, "bias": 3.0, "seed": 0}
    return train_mask(model, base, tau, examples, 0, **(settings | changes))


def test_training_leaves_base_and_task_vector_untouched(parts, examples):
    _, base, tau = parts
    before = [{name: t.clone() for name, t in tensors.items()} for tensors in (base, tau)]
    _train(parts, examples)
    for tensors, copies in zip((base, tau), before, strict=True):
        assert all(torch.equal(tensors[name], copies[name]) for name in tensors)


def test_training_moves_the_mask_and_repeats_itself(parts, examples):
    first, facts = _train(parts, examples)
    second, _ = _train(parts, examples)
    assert facts["changed"] > 0
    assert all(mask.dtype == torch.bool and mask.shape == parts[2][name].shape for name, mask in first.items())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_lowers_the_loss_of_the_masked_model(parts, examples):
    _, facts = _train(parts, examples, steps=20, batch_size=len(examples))
    assert facts["last_loss"] < facts["first_loss"]


def test_l1_empties_the_mask(parts, examples):
    kept = [_train(parts, examples, l1=l1)[1]["kept"] for l1 in (0.0, 1.0)]
    assert kept[1] < kept[0]


def test_a_diverging_loss_is_reported(parts, examples):
    model, base, tau = parts
    broken = {name: torch.full_like(t, float("nan")) for name, t in base.items()}
    with pytest.raises(MergebenchError, match="loss became nan at step 0"):
        _train((model, broken, tau), examples)
