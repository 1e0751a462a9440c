"""Localize-and-Stitch with trained masks."""

import torch

from mergebench.merging.context import Tensors
from mergebench.merging.registry import Reference, method
from mergebench.merging.stitching import stitch


@method(
    title="Localize-and-Stitch",
    reference=Reference("He et al., 2025", "2408.13656"),
    data="training",
    statistics=("mask",),
)
def localize_and_stitch(context: Tensors) -> torch.Tensor:
    """Keep what a trained mask selects of each task vector, average where masks overlap.

    1. Localise: gamma_t minimises the loss of theta_0 + gamma_t * tau_t on task t's samples (the "mask" statistic). A
       parameter outside the masks keeps the base's value.
    2. Stitch: theta = theta_0 + sum_t gamma_t * tau_t / sum_j gamma_j.
    """
    if all(context.find("mask", domain, context.name) is None for domain in context.domains):
        return torch.zeros_like(context.base)
    masks = context.statistic("mask").bool()
    context.observe(masks)
    return stitch(context.vectors, masks)
