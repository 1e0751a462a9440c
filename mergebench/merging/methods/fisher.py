"""Fisher merging."""

from typing import Annotated

import torch

from mergebench.merging.context import Tensors
from mergebench.merging.registry import Range, Reference, method


def norms(context: Tensors, *, normalise: bool, floor: float) -> torch.Tensor | None:
    """Each domain's squared Fisher entries of this parameter, added up; (n,) float64."""
    if not normalise:
        return None
    return torch.stack([each.double().square().sum() for each in context.statistic("fisher")])


@method(
    title="Fisher merging",
    reference=Reference("Matena and Raffel, 2022", "2111.09832"),
    data="training",
    statistics=("fisher",),
    total=norms,
)
def fisher(context: Tensors, *, normalise: bool = True, floor: Annotated[float, Range(1e-12, 1)] = 1e-6) -> torch.Tensor:
    """The average of the specialists, weighted by their diagonal Fisher information.

    theta = sum_t F_t theta_t / sum_t F_t, solved for the task vector: theta_0 + sum_t F_t tau_t / sum_t F_t. It is the
    same in exact arithmetic, and rounding errors are of the size of the task vector instead of the weights'.

    Args:
        normalise: Divide each F_t by its Euclidean norm over the whole model, so that a domain with large gradients
            does not outweigh the others (the original's default).
        floor: Smallest weight, so that a parameter which no domain is sensitive to is averaged (the original's value).
    """
    weights = context.statistic("fisher").double()
    if normalise and context.total is not None:
        sizes = context.total.sqrt()
        weights = weights / torch.where(sizes > 0, sizes, 1).reshape(-1, *[1] * context.base.dim())
    weights = weights.clamp_min(floor)
    return ((weights * context.vectors).sum(0) / weights.sum(0)).float()
