"""Model Soup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergebench.merging.context import Block, Tensors
from mergebench.merging.perdomain import per_domain
from mergebench.merging.registry import Reference, method
from mergebench.merging.sums import add_weighted, as_row, divide, normaliser, weighted_sum

if TYPE_CHECKING:
    import numpy as np
    import torch


def kernel(block: Block, out: np.ndarray, *, weights: float | dict[str, float]) -> None:
    """The definition below, on one block."""
    shares = per_domain(weights, block.domains, "model_soup.weights")
    add_weighted(block.vectors, as_row(shares), out)
    divide(out, normaliser(shares, "model_soup"))


@method(title="Model Soup", reference=Reference("Wortsman et al., 2022", "2203.05482"), kernel=kernel)
def model_soup(context: Tensors, *, weights: float | dict[str, float] = 1.0) -> torch.Tensor:
    """The average of the specialists.

    theta = sum_t w_t theta_t / sum_t w_t, that is theta_0 + sum_t w_t tau_t / sum_t w_t.

    Args:
        weights: w_t, per domain or one for all; the paper's soup is uniform.
    """
    shares = per_domain(weights, context.domains, "model_soup.weights")
    return weighted_sum(context.vectors, shares, context.domains) / normaliser(shares, "model_soup")
