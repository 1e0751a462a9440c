"""Localize-and-Stitch without data."""

from typing import Annotated, Literal

import torch

from mergebench.merging.context import Tensors
from mergebench.merging.registry import Range, Reference, method
from mergebench.merging.stitching import stitch


@method(
    title="Dataless Localize-and-Stitch",
    reference=Reference("He et al., 2025", "2408.13656"),
    data="validation",
    spectra=True,
    grid={"density": (0.1, 0.2, 0.3, 0.4, 0.5)},
    note="MergeBench searches 10% to 50% in 5 steps; even steps are assumed.",
)
def dataless_localize_and_stitch(
    context: Tensors, *, density: Annotated[float, Range(0, 1)] = 0.1, ties: Literal["all", "strict"] = "all"
) -> torch.Tensor:
    """Keep each task vector's largest entries, average where they overlap.

    1. Localise: gamma_t = 1 at the `density` entries of largest |tau_t| over the whole model.
    2. Stitch: theta = theta_0 + sum_t gamma_t * tau_t / sum_j gamma_j.

    Args:
        density: Fraction of each task vector that is kept ("sparsity" in the paper).
        ties: Keep "all" entries equal to the threshold, or none of them ("strict").
    """
    masks = context.top(density, ties)
    context.observe(masks)
    return stitch(context.vectors, masks)
