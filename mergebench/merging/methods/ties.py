"""TIES merging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np

from mergebench.kernels.elect import elect_block
from mergebench.kernels.trim import trim
from mergebench.merging.context import Block, Tensors
from mergebench.merging.cuts import Among, Count, Ties
from mergebench.merging.lazy import torch
from mergebench.merging.perdomain import per_domain
from mergebench.merging.registry import Range, Reference, method
from mergebench.merging.signs import (
    AGGREGATES,
    Aggregate,
    ZeroSign,
    balance,
    elect,
    merge_agreeing,
    merge_block,
    merge_largest,
    sign_of_zero,
)
from mergebench.merging.sums import as_row, scale_rows

if TYPE_CHECKING:
    from torch import Tensor

Numbers = float | dict[str, float]


def trimmed(context: Tensors, kept: Tensor, shares: list[float]) -> list[Tensor]:
    """The task vectors with all but the kept entries set to zero, times their weights."""
    return [torch.where(mask, vector, 0.0) * share for mask, vector, share in zip(kept, context.vectors, shares, strict=True)]


def majority(
    context: Tensors,
    *,
    density: Numbers,
    ties: Ties,
    threshold_scope: Among,
    count: Count,
    aggregate: Aggregate,
    zero_sign: ZeroSign,
    weights: Numbers,
) -> Tensor | None:
    """The sum of the elected signs of this piece, float64; None where it decides nothing."""
    if zero_sign != "majority" or context.totals:
        return None
    shares = per_domain(weights, context.domains, "ties.weights")
    return elect(trimmed(context, context.top(density, ties, among=threshold_scope, count=count), shares)).double().sum()


def majority_kernel(
    block: Block,
    *,
    density: Numbers,
    ties: Ties,
    threshold_scope: Among,
    count: Count,
    aggregate: Aggregate,
    zero_sign: ZeroSign,
    weights: Numbers,
) -> float | None:
    """`majority` of one block."""
    if zero_sign != "majority" or block.totals:
        return None
    limits, spares = block.limits(density, ties, among=threshold_scope, count=count)
    if weights == 1 and not spares.any():
        return float(balance(block.vectors, limits))
    vectors, _ = _trimmed(block, (limits, spares), weights)
    found, _ = elect_block(vectors, np.empty(vectors.shape[1], np.float32), 0.0)
    return float(found)


def kernel(
    block: Block,
    out: np.ndarray,
    *,
    density: Numbers,
    ties: Ties,
    threshold_scope: Among,
    count: Count,
    aggregate: Aggregate,
    zero_sign: ZeroSign,
    weights: Numbers,
) -> None:
    """The definition below, on one block."""
    limits, spares = block.limits(density, ties, among=threshold_scope, count=count)
    zero = sign_of_zero(zero_sign, float(block.totals[0]) if block.totals else 0.0)
    if weights == 1 and aggregate != "max" and not spares.any():
        kept, cancelled = merge_largest(block.vectors, limits, zero, aggregate == "mean", out)
    else:
        vectors, kept = _trimmed(block, (limits, spares), weights)
        signs = np.empty(out.size, np.float32)
        _, cancelled = elect_block(vectors, signs, zero)
        merge_block(vectors, as_row(per_domain(weights, block.domains, "ties.weights")), signs, AGGREGATES[aggregate], out)
    block.observe(kept, cancelled)


def _trimmed(block: Block, limits: tuple[np.ndarray, np.ndarray], weights: Numbers) -> tuple[np.ndarray, np.ndarray]:
    vectors = np.empty_like(block.vectors)
    kept = trim(block.vectors, *limits, vectors)
    if weights != 1:
        scale_rows(vectors, as_row(per_domain(weights, block.domains, "ties.weights")))
    return vectors, kept


@method(
    title="TIES merging",
    reference=Reference("Yadav et al., 2023", "2306.01708"),
    data="validation",
    spectra=True,
    scale=1.0,
    grid={"density": (0.1, 0.2, 0.3), "scale": tuple(step / 10 for step in range(1, 11))},
    note="MergeBench prints 30 pairs and not which; 3 densities by 10 scales are assumed.",
    total=majority,
    total_kernel=majority_kernel,
    kernel=kernel,
    through_thresholds=("density", "ties", "threshold_scope", "count"),
)
def ties(
    context: Tensors,
    *,
    density: Annotated[float | dict[str, float], Range(0, 1)] = 0.2,
    ties: Ties = "all",
    threshold_scope: Among = "global",
    count: Count = "nearest",
    aggregate: Aggregate = "mean",
    zero_sign: ZeroSign = "majority",
    weights: float | dict[str, float] = 1.0,
) -> Tensor:
    """Trim, elect signs, merge what agrees.

    1. Trim: of each task vector, over the whole model, keep the `density` entries of largest magnitude.
    2. Elect: gamma = sign(sum_t w_t tau_t), from the trimmed vectors.
    3. Merge: the mean (or sum, or largest magnitude) of the kept entries whose sign is gamma.

    Args:
        density: Fraction of each task vector that is kept.
        ties: Of entries equal to the threshold keep "all", none ("strict"), or as many as were asked for ("exact").
        threshold_scope: Keep that fraction of the whole model ("global") or of each tensor ("tensor").
        count: How many entries a density asks for, see `cuts.Count`.
        aggregate: How agreeing entries are combined; the paper takes the mean.
        zero_sign: The sign where kept entries cancel: the "majority" of all elected signs (the original code), "positive",
            or none, which leaves the base ("drop").
        weights: w_t, per domain or one for all; a mean divides by the sum of those that agree. The paper has none.
    """
    shares = per_domain(weights, context.domains, "ties.weights")
    kept = context.top(density, ties, among=threshold_scope, count=count)
    vectors = trimmed(context, kept, shares)
    sign = elect(vectors)
    zero = sign == 0
    context.observe(kept, cancelled=int((zero & torch.stack(vectors).ne(0).any(0)).sum()))
    default = sign_of_zero(zero_sign, float(context.totals[0]) if context.totals else 0.0)
    return merge_agreeing(vectors, shares, torch.where(zero, default, sign), aggregate)
