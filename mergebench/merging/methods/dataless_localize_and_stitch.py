"""Localize-and-Stitch without data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from mergebench.kernels.trim import trim
from mergebench.merging import pollution as released
from mergebench.merging.context import Block, Tensors
from mergebench.merging.cuts import Among, Count, Ties, densities
from mergebench.merging.order import released_order
from mergebench.merging.registry import Range, Reference, method
from mergebench.merging.stitching import Overlap, stitch, stitch_largest, stitch_nonzero, stitch_released

if TYPE_CHECKING:
    from torch import Tensor

Numbers = float | dict[str, float]


def thresholds(
    context: Tensors, *, density: Numbers, ties: Ties, threshold_scope: Among, count: Count, overlap: Overlap, pollution: bool
) -> Tensor | None:
    """The search for thresholds against a polluted base; None where there is no need for it."""
    return released.thresholds(context, densities(density, context.domains)) if pollution else None


def thresholds_kernel(block: Block, *, pollution: bool, **parameters: Any) -> np.ndarray | None:
    """`thresholds` of one block."""
    if not pollution:
        return None
    found = thresholds(released.as_tensors(block), pollution=True, **parameters)
    return None if found is None else found.numpy()


def kernel(
    block: Block,
    out: np.ndarray,
    *,
    density: Numbers,
    ties: Ties,
    threshold_scope: Among,
    count: Count,
    overlap: Overlap,
    pollution: bool,
) -> None:
    """The definition below, on one block."""
    if pollution:
        out[:] = released.polluted_largest(released.as_tensors(block), densities(density, block.domains)).numpy()
        return
    limits, spares = block.limits(density, ties, among=threshold_scope, count=count)
    if overlap == "all" and not spares.any():
        block.observe(stitch_largest(block.vectors, limits, out))
        return
    trimmed = np.empty_like(block.vectors)
    block.observe(trim(block.vectors, limits, spares, trimmed))
    if overlap == "all":
        stitch_nonzero(trimmed, out)
    else:
        vectors = released.as_tensors(block).vectors.new_tensor(trimmed)
        out[:] = stitch_released(vectors, vectors != 0, released_order(block.domains)).numpy()


@method(
    title="Dataless Localize-and-Stitch",
    reference=Reference("He et al., 2025", "2408.13656"),
    data="validation",
    spectra=True,
    grid={"density": (0.1, 0.2, 0.3, 0.4, 0.5)},
    note="MergeBench searches 10% to 50% in 5 steps; even steps are assumed.",
    total=thresholds,
    total_kernel=thresholds_kernel,
    kernel=kernel,
    through_thresholds=("density", "ties", "threshold_scope", "count"),
)
def dataless_localize_and_stitch(
    context: Tensors,
    *,
    density: Annotated[float | dict[str, float], Range(0, 1)] = 0.1,
    ties: Ties = "all",
    threshold_scope: Among = "global",
    count: Count = "nearest",
    overlap: Overlap = "all",
    pollution: bool = False,
) -> Tensor:
    """Keep each task vector's largest entries, average where they overlap.

    1. Localise: gamma_t = 1 at the `density` entries of largest |tau_t| over the whole model.
    2. Stitch: theta = theta_0 + sum_t gamma_t * tau_t / sum_j gamma_j.

    Args:
        density: Fraction of each task vector that is kept ("sparsity" in the paper).
        ties: Of entries equal to the threshold keep "all", none ("strict"), or as many as were asked for ("exact").
        threshold_scope: Keep that fraction of the whole model ("global") or of each tensor ("tensor").
        count: How many entries a density asks for, see `cuts.Request`.
        overlap: Divide by the number of "all" tasks that selected an entry, or as the released code does, see `stitch_released`.
        pollution: Localise each task against the base that the earlier ones have changed, as the released code does, see `pollution.py`;
            its thresholds and overlaps are then the released code's too.
    """
    if pollution:
        return released.polluted_largest(context, densities(density, context.domains))
    masks = context.top(density, ties, among=threshold_scope, count=count)
    context.observe(masks)
    if overlap == "last":
        return stitch_released(context.vectors, masks, released_order(context.domains))
    return stitch(context.vectors, masks)
