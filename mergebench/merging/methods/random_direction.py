"""The control that moves as far as Model Soup, at random."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mergebench.kernels.counter import draw, look_up, sum_of_squares
from mergebench.merging import counter
from mergebench.merging.context import Block, Tensors
from mergebench.merging.lazy import torch
from mergebench.merging.registry import Reference, method
from mergebench.merging.sums import add_weighted, as_row, divide, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor

STREAM = "random_direction"  # in place of a domain: one direction for all specialists


def norms(context: Tensors) -> Tensor:
    """Of this piece, the sums of squares of Model Soup's direction and of the random numbers: float64 (2,)."""
    soup = weighted_sum(context.vectors, [1.0] * len(context.domains), context.domains) / len(context.domains)
    return torch.stack([soup.double().square().sum(), normal(context).double().square().sum()])


def norms_kernel(block: Block) -> np.ndarray:
    """`norms` of one block."""
    soup = np.empty(block.base.size, np.float32)
    add_weighted(block.vectors, as_row([1.0] * len(block.domains)), soup)
    divide(soup, len(block.domains))
    return np.array([sum_of_squares(soup), sum_of_squares(drawn(block))])


def normal(context: Tensors) -> Tensor:
    """The piece's random numbers, float32 (m,)."""
    key = counter.key(context.seed, STREAM, context.name)
    return torch.from_numpy(counter.normal(key, context.offset, context.base.numel())).to(context.vectors.device)


def drawn(block: Block) -> np.ndarray:
    """`normal` of one block."""
    draws, numbers = np.empty(block.base.size, np.uint32), np.empty(block.base.size, np.float32)
    draw(np.uint64(counter.key(block.seed, STREAM, block.name)), np.uint64(block.offset), draws)
    look_up(draws, counter.quantiles(), numbers)
    return numbers


def factor(norms: np.ndarray) -> float:
    """What a tensor's random numbers are multiplied by: the ratio of the norms; 0 for a tensor without entries."""
    soup, random = norms
    return math.sqrt(soup / random) if random else 0.0


def kernel(block: Block, out: np.ndarray) -> None:
    """The definition below, on one block."""
    np.multiply(drawn(block), np.float32(factor(block.tensor_total)), out=out)


@method(
    title="Random direction",
    reference=Reference("after Li et al., 2018", "1712.09913"),
    random=True,
    control=True,
    note="Li et al. give random directions the norms of a model's filters; here it is those of Model Soup's direction in each tensor.",
    tensor_total=norms,
    tensor_total_kernel=norms_kernel,
    kernel=kernel,
)
def random_direction(context: Tensors) -> Tensor:
    """A Gaussian direction as long, in every tensor, as the average of the task vectors: would any change of this size do?

    theta = theta_0 + g ||1/n sum_t tau_t|| / ||g||, g ~ N(0, I), norms over each tensor alone.

    Entries depend on the seed, the tensor's name and the entry's position alone; the specialists decide only how long the direction is.
    Norms are those of the directions in float32, before the sum is rounded to the checkpoint's dtype.
    """
    found = normal(context) * factor(np.asarray(context.tensor_total))
    return found.to(context.vectors.dtype)
