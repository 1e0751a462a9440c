"""Fisher merging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from mergebench.kernels.compiled import compiled
from mergebench.merging.context import Block, Tensors
from mergebench.merging.lazy import torch
from mergebench.merging.perdomain import per_domain
from mergebench.merging.registry import Range, Reference, method

if TYPE_CHECKING:
    from torch import Tensor

Smoothing = Literal["floor", "add"]
Numbers = float | dict[str, float]
OWNER = "fisher.weights"


def norms(context: Tensors, *, normalise: bool, floor: float, smoothing: Smoothing, weights: Numbers) -> Tensor | None:
    """Each domain's squared Fisher entries of this piece, added up; (n,) float64."""
    if not normalise or context.totals:
        return None
    return torch.stack([each.double().square().sum() for each in context.statistic("fisher")])


def norms_kernel(block: Block, *, normalise: bool, floor: float, smoothing: Smoothing, weights: Numbers) -> np.ndarray | None:
    """`norms` of one block."""
    if not normalise or block.totals:
        return None
    return np.array([squares(each) for each in block.statistic("fisher")])


def kernel(block: Block, out: np.ndarray, *, normalise: bool, floor: float, smoothing: Smoothing, weights: Numbers) -> None:
    """The definition below, on one block."""
    sizes = np.ones(len(block.domains))
    if normalise and block.totals:
        sizes = np.sqrt(block.totals[0])
        sizes[sizes == 0] = 1
    shares = np.array(per_domain(weights, block.domains, OWNER))
    average(block.vectors, block.statistic("fisher"), sizes, shares, floor, smoothing == "add", out)


@compiled
def squares(values):  # type: ignore[no-untyped-def]
    """The sum of squares of a block, float64, in the order of its entries."""
    total = 0.0
    for i in range(values.size):
        total += np.float64(values[i]) * np.float64(values[i])
    return total


@compiled
def average(vectors, fishers, sizes, shares, floor, add, out):  # type: ignore[no-untyped-def]
    """sum_t w_t F_t tau_t / sum_t w_t F_t in float64: float32 (n, m), (n, m), float64 (n,), (n,) -> float32 (m,)."""
    above, below = np.zeros(out.size), np.zeros(out.size)
    for t in range(vectors.shape[0]):
        vector, fisher, size, share = vectors[t], fishers[t], sizes[t], shares[t]
        for i in range(out.size):
            weight = np.float64(fisher[i]) / size
            weight = share * (weight + floor if add else max(weight, floor))
            above[i] += weight * np.float64(vector[i])
            below[i] += weight
    for i in range(out.size):
        out[i] = np.float32(above[i] / below[i])


@method(
    title="Fisher merging",
    reference=Reference("Matena and Raffel, 2022", "2111.09832"),
    data="training",
    statistics=("fisher",),
    total=norms,
    total_kernel=norms_kernel,
    kernel=kernel,
)
def fisher(
    context: Tensors,
    *,
    normalise: bool = True,
    floor: Annotated[float, Range(1e-12, 1)] = 1e-6,
    smoothing: Smoothing = "floor",
    weights: Annotated[Numbers, Range(1e-6, 1e6)] = 1.0,
) -> Tensor:
    """The average of the specialists, weighted by their diagonal Fisher information.

    theta = sum_t w_t F_t theta_t / sum_t w_t F_t, solved for the task vector: theta_0 + sum_t w_t F_t tau_t / sum_t w_t F_t. It is
    the same in exact arithmetic, and rounding errors are of the size of the task vector instead of the weights'.

    Args:
        normalise: Divide each F_t by its Euclidean norm over the whole model, so that a domain with large gradients
            does not outweigh the others (the original's default).
        floor: Smallest F_t, so that a parameter which no domain is sensitive to is averaged (the original's value).
        smoothing: Raise smaller values to the `floor`, or "add" it to every one.
        weights: w_t (lambda_i in the paper, which searches them), per domain or one for all; only their ratios count.
    """
    sizes = torch.ones(len(context.domains), dtype=torch.float64, device=context.vectors.device)
    if normalise and context.totals:
        sizes = torch.from_numpy(np.sqrt(context.totals[0])).to(sizes.device)
        sizes = torch.where(sizes > 0, sizes, 1.0)
    shares = per_domain(weights, context.domains, OWNER)
    above = torch.zeros(context.base.shape, dtype=torch.float64, device=context.vectors.device)
    below = torch.zeros_like(above)
    for vector, statistic, size, share in zip(context.vectors, context.statistic("fisher"), sizes, shares, strict=True):
        weight = statistic.double() / size
        weight = share * (weight + floor if smoothing == "add" else weight.clamp_min(floor))
        above = above + weight * vector.double()
        below = below + weight
    return (above / below).float()
