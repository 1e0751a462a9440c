"""Localize-and-Stitch with trained masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mergebench.merging import pollution as released
from mergebench.merging.context import Block, Tensors
from mergebench.merging.lazy import torch
from mergebench.merging.order import released_order
from mergebench.merging.registry import Reference, method
from mergebench.merging.stitching import Overlap, stitch, stitch_released, stitch_selected

if TYPE_CHECKING:
    from torch import Tensor


def kernel(block: Block, out: np.ndarray, *, overlap: Overlap, pollution: bool) -> None:
    """The definition below, on one block."""
    if not block.measured("mask"):
        out[:] = 0
    elif overlap == "all" and not pollution:
        block.observe(stitch_selected(block.vectors, block.statistic("mask").view(np.uint8), out))
    else:
        out[:] = localize_and_stitch(released.as_tensors(block), overlap=overlap, pollution=pollution).numpy()


@method(
    title="Localize-and-Stitch",
    reference=Reference("He et al., 2025", "2408.13656"),
    data="training",
    statistics=("mask",),
    kernel=kernel,
)
def localize_and_stitch(context: Tensors, *, overlap: Overlap = "all", pollution: bool = False) -> Tensor:
    """Keep what a trained mask selects of each task vector, average where masks overlap.

    1. Localise: gamma_t minimises the loss of theta_0 + gamma_t * tau_t on task t's samples (the "mask" statistic). A
       parameter outside the masks keeps the base's value.
    2. Stitch: theta = theta_0 + sum_t gamma_t * tau_t / sum_j gamma_j.

    Args:
        overlap: Divide by the number of "all" tasks that selected an entry, or as the released code does, see `stitch_released`.
        pollution: Localise each task against the base that the earlier ones have changed, as the released code does, see `pollution.py`;
            its overlaps are then the released code's too.
    """
    if all(context.find("mask", domain, context.name) is None for domain in context.domains):
        return torch.zeros_like(context.base)
    masks = context.statistic("mask").bool()
    if pollution:
        return released.polluted(context, lambda row, vector: masks[row])
    context.observe(masks)
    return stitch_released(context.vectors, masks, released_order(context.domains)) if overlap == "last" else stitch(context.vectors, masks)
