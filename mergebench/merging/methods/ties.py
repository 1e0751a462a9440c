"""TIES merging."""

from typing import Annotated, Literal

import torch

from mergebench.merging.context import Tensors
from mergebench.merging.registry import Range, Reference, method

Ties = Literal["all", "strict"]
Aggregate = Literal["mean", "sum", "max"]
ZeroSign = Literal["majority", "positive", "drop"]


def trim(context: Tensors, density: float, ties: str) -> torch.Tensor:
    """The task vectors with all but their largest entries set to zero."""
    return torch.where(context.top(density, ties), context.vectors, 0.0)


def elect(trimmed: torch.Tensor) -> torch.Tensor:
    """The sign of the summed trimmed task vectors: -1, 0 or 1. Summed in float64, where n float32 numbers add exactly
    enough that opposite ones cancel to zero."""
    return trimmed.double().sum(0).sign().float()


def majority(context: Tensors, *, density: float, ties: Ties, aggregate: Aggregate, zero_sign: ZeroSign) -> torch.Tensor | None:
    """The sum of the elected signs of this parameter."""
    return elect(trim(context, density, ties)).double().sum() if zero_sign == "majority" else None


@method(
    title="TIES merging",
    reference=Reference("Yadav et al., 2023", "2306.01708"),
    data="validation",
    spectra=True,
    scale=1.0,
    grid={"density": (0.1, 0.2, 0.3), "scale": tuple(step / 10 for step in range(1, 11))},
    note="MergeBench prints 30 pairs and not which; 3 densities by 10 scales are assumed.",
    total=majority,
)
def ties(
    context: Tensors,
    *,
    density: Annotated[float, Range(0, 1)] = 0.2,
    ties: Ties = "all",
    aggregate: Aggregate = "mean",
    zero_sign: ZeroSign = "majority",
) -> torch.Tensor:
    """Trim, elect signs, merge what agrees.

    1. Trim: of each task vector, over the whole model, keep the `density` entries of largest magnitude.
    2. Elect: gamma = sign(sum_t tau_t), from the trimmed vectors.
    3. Merge: the mean (or sum, or largest magnitude) of the kept entries whose sign is gamma.

    Args:
        density: Fraction of each task vector that is kept.
        ties: Keep "all" entries equal to the threshold, or none of them ("strict").
        aggregate: How agreeing entries are combined; the paper takes the mean.
        zero_sign: The sign where kept entries cancel: the "majority" of all elected signs (the original code), "positive",
            or none, which leaves the base ("drop").
    """
    kept = context.top(density, ties)
    context.observe(kept)
    trimmed = torch.where(kept, context.vectors, 0.0)
    sign = elect(trimmed)
    if zero_sign == "positive" or (zero_sign == "majority" and context.total is not None):
        default = 1.0 if zero_sign == "positive" or context.total is None else float(context.total.sign())
        sign = torch.where(sign == 0, default, sign)
    agreeing = torch.where(trimmed * sign > 0, trimmed, 0.0)
    if aggregate == "max":
        return agreeing.abs().amax(0) * sign
    total = agreeing.sum(0)
    return total if aggregate == "sum" else total / (agreeing != 0).sum(0).clamp_min(1)
