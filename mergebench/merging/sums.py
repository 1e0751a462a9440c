"""Weighted sums of task vectors, as definitions (torch) and as kernels, bit for bit the same.

Sums are loops in the order of the domains: the order of a reduction inside a library depends on shapes, threads and devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mergebench.errors import MergebenchError
from mergebench.kernels.blocks import add_up
from mergebench.kernels.compiled import compiled
from mergebench.merging.lazy import torch
from mergebench.merging.order import released_order

if TYPE_CHECKING:
    from torch import Tensor

    from mergebench.merging.context import Block


def weighted_sum(vectors: Tensor, weights: Sequence[float], domains: Sequence[str]) -> Tensor:
    """sum_t w_t tau_t: (n, *shape) -> (*shape), in the dtype of `vectors`, each product and each sum rounded to it.

    The order is that of the domains; in bfloat16, which only the released code computes in, it is the released code's.
    """
    first, *others = range(len(weights)) if vectors.dtype is torch.float32 else released_order(domains)
    total = vectors[first] * weights[first]
    for row in others:
        total = total + vectors[row] * weights[row]
    return total


def normaliser(weights: Sequence[float], owner: str) -> float:
    """The sum of the weights, to divide by.

    Raises:
        MergebenchError: They cancel.
    """
    total = sum(weights)
    if abs(total) < 1e-8:
        raise MergebenchError(f"The weights of {owner} add up to {total:g}, so nothing can be divided by their sum; change one of them.")
    return total


def as_row(numbers: Sequence[float]) -> np.ndarray:
    """Numbers, one per domain, as kernels take them: float32 (n,)."""
    return np.array(numbers, np.float32)


@compiled
def add_weighted(vectors, weights, out):  # type: ignore[no-untyped-def]
    """`weighted_sum` of a block: float32 (n, m), (n,) -> (m,)."""
    weight = weights[0]
    for i in range(out.size):
        out[i] = vectors[0, i] * weight
    for t in range(1, vectors.shape[0]):
        vector, weight = vectors[t], weights[t]
        for i in range(out.size):
            out[i] += vector[i] * weight


@compiled
def divide(out, divisor):  # type: ignore[no-untyped-def]
    """Divide a block by a number, in place."""
    number = np.float32(divisor)
    for i in range(out.size):
        out[i] /= number


@compiled
def scale_rows(vectors, weights):  # type: ignore[no-untyped-def]
    """Multiply each row of a block by its weight, in place: float32 (n, m), (n,)."""
    for t in range(vectors.shape[0]):
        vector, weight = vectors[t], weights[t]
        for i in range(vector.size):
            vector[i] *= weight


def plain_sum(block: Block) -> np.ndarray:
    """The sum of a block's task vectors, float32 (m,), made once for all directions that need it."""

    def make() -> np.ndarray:
        total = np.empty(block.vectors.shape[1], np.float32)
        add_up(block.vectors, total)
        return total

    found: np.ndarray = block.shared("sum", make)
    return found
