"""Task Arithmetic."""

import torch

from mergebench.merging.context import Tensors
from mergebench.merging.registry import Reference, method


@method(
    title="Task Arithmetic",
    reference=Reference("Ilharco et al., 2023", "2212.04089"),
    data="validation",
    scale=0.4,
    grid={"scale": tuple(step / 10 for step in range(1, 11))},
    note="MergeBench prints 10 values and not which; 0.1 to 1.0 is assumed.",
)
def task_arithmetic(context: Tensors) -> torch.Tensor:
    """The sum of the task vectors, scaled.

    theta = theta_0 + scale * sum_t tau_t.
    """
    return context.vectors.sum(0)
