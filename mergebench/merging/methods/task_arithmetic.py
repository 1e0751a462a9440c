"""Task Arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergebench.merging.context import Block, Tensors
from mergebench.merging.perdomain import per_domain
from mergebench.merging.registry import Reference, method
from mergebench.merging.sums import add_weighted, as_row, divide, normaliser, plain_sum, weighted_sum

if TYPE_CHECKING:
    import numpy as np
    import torch


def kernel(block: Block, out: np.ndarray, *, weights: float | dict[str, float], normalise: bool) -> None:
    """The definition below, on one block."""
    shares = per_domain(weights, block.domains, "task_arithmetic.weights")
    if weights == 1:
        out[:] = plain_sum(block)
    else:
        add_weighted(block.vectors, as_row(shares), out)
    if normalise:
        divide(out, normaliser(shares, "task_arithmetic"))


@method(
    title="Task Arithmetic",
    reference=Reference("Ilharco et al., 2023", "2212.04089"),
    data="validation",
    scale=0.4,
    grid={"scale": tuple(step / 10 for step in range(1, 11))},
    note="MergeBench prints 10 values and not which; 0.1 to 1.0 is assumed.",
    kernel=kernel,
)
def task_arithmetic(context: Tensors, *, weights: float | dict[str, float] = 1.0, normalise: bool = False) -> torch.Tensor:
    """The sum of the task vectors, scaled.

    theta = theta_0 + scale * sum_t w_t tau_t.

    Args:
        weights: w_t, per domain or one for all; the paper's sum has none.
        normalise: Divide by the sum of the weights.
    """
    shares = per_domain(weights, context.domains, "task_arithmetic.weights")
    total = weighted_sum(context.vectors, shares, context.domains)
    return total / normaliser(shares, "task_arithmetic") if normalise else total
