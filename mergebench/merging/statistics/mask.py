"""Trained Localize-and-Stitch masks (He et al., 2024): where a specialist's skill lives in its task vector.

A mask has one logit S per element of the task vector tau. Training minimises

    loss(theta_0 + sigmoid(S) * tau) + l1 * ||sigmoid(S)||_1

by gradient descent on S, with the exact gradient d/dS = (d loss / d theta * tau + l1) * sigmoid'(S). The rounded
mask is S > 0. The base theta_0 is read afresh in every step and never written.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mergebench.errors import MergebenchError
from mergebench.training.examples import Example, collate

Tensors = dict[str, torch.Tensor]


def initial_logits(task_vector: Mapping[str, torch.Tensor], density: float, bias: float) -> Tensors:
    """Logits ``+bias`` at the `density` share of largest |tau| over all tensors together, ``-bias`` elsewhere.

    Exactly ``round(density * elements)`` logits are positive; ties at the threshold go to the first in order.
    """
    magnitudes = torch.cat([tau.abs().flatten() for tau in task_vector.values()])
    kept = torch.argsort(magnitudes, descending=True, stable=True)[: round(density * magnitudes.numel())]
    flat = torch.full_like(magnitudes, -bias)
    flat[kept] = bias
    parts = flat.split([tau.numel() for tau in task_vector.values()])
    return {name: part.view_as(tau).clone() for (name, tau), part in zip(task_vector.items(), parts, strict=True)}


def load_masked(model: Any, base: Mapping[str, torch.Tensor], task_vector: Tensors, logits: Tensors) -> None:
    """Set the model's parameters to ``theta_0 + sigmoid(S) * tau``; those without a logit to ``theta_0``."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(base[name])
            if name in logits:
                parameter.addcmul_(logits[name].sigmoid(), task_vector[name])


def logit_gradients(
    model: Any, base: Mapping[str, torch.Tensor], task_vector: Tensors, logits: Tensors, batch: dict[str, Any], l1: float
) -> tuple[float, Tensors]:
    """Loss (mean over the batch's response tokens) and the exact gradient of the objective by S."""
    load_masked(model, base, task_vector, logits)
    loss = model(**batch, use_cache=False).loss
    names = list(logits)
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, [parameters[name] for name in names])
    result = {}
    for name, gradient in zip(names, gradients, strict=True):
        share = logits[name].sigmoid()
        result[name] = (gradient * task_vector[name] + l1) * share * (1 - share)
    return float(loss.detach()), result


def train_mask(
    model: Any,
    base: Mapping[str, torch.Tensor],
    task_vector: Tensors,
    examples: Sequence[Example],
    pad_token_id: int,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    l1: float,
    density: float,
    bias: float,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Tensors, dict[str, float]]:
    """Train a mask and round it.

    Args:
        model: used as a vessel: its parameters are overwritten in each step.
        base: parameter name -> base weight, float32; not written.
        task_vector: parameter name -> specialist minus base, for the parameters that the mask covers.
        learning_rate: step on the logits per unit of gradient relative to the first step's largest one, so that it
            does not depend on the scale of the task vector.

    Returns:
        Parameter name -> boolean mask of the parameter's shape, and facts: the share kept, the share of elements
        that changed side in training, and the loss before and after rounding.
    """
    logits = initial_logits(task_vector, density, bias)
    start = {name: logit > 0 for name, logit in logits.items()}
    rng = np.random.default_rng(seed)
    device = next(model.parameters()).device
    order: list[int] = []
    scale = 0.0
    losses = []
    for step in range(steps):
        if len(order) < batch_size:
            order += rng.permutation(len(examples)).tolist()
        chosen, order = order[:batch_size], order[batch_size:]
        batch = {k: v.to(device) for k, v in collate([examples[i] for i in chosen], pad_token_id).items()}
        loss, gradients = logit_gradients(model, base, task_vector, logits, batch, l1)
        if not math.isfinite(loss):
            raise MergebenchError(f"mask: the masked model's loss became {loss} at step {step}; lower learning_rate.")
        scale = scale or max(float(g.abs().max()) for g in gradients.values()) or 1.0
        for name, gradient in gradients.items():
            logits[name].sub_(gradient, alpha=learning_rate / scale)
        losses.append(loss)
        progress(step + 1)
    masks = {name: logit > 0 for name, logit in logits.items()}
    elements = sum(mask.numel() for mask in masks.values())
    return masks, {
        "kept": sum(int(mask.sum()) for mask in masks.values()) / elements,
        "changed": sum(int((masks[name] != start[name]).sum()) for name in masks) / elements,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }
