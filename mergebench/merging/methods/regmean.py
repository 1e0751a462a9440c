"""RegMean."""

import logging
from typing import Annotated

import torch

from mergebench.merging.context import Tensors
from mergebench.merging.registry import Range, Reference, method

# Below this estimate of the reciprocal condition number, fp64 leaves too few digits for float32 weights.
SINGULAR = 1e-10
RIDGES = (1e-8, 1e-6, 1e-4, 1e-2)

logger = logging.getLogger(__name__)


@method(
    title="RegMean",
    reference=Reference("Jin et al., 2023", "2212.09849"),
    scope="matrix",
    data="training",
    statistics=("gram",),
    grid={"reduction": (0.1, 0.3, 0.5, 0.7, 0.9)},
    note="MergeBench prints 5 values and not which; 0.1, 0.3, 0.5, 0.7, 0.9 are assumed.",
)
def regmean(context: Tensors, *, reduction: Annotated[float, Range(0, 1)] = 0.9) -> torch.Tensor:
    """The linear layer whose outputs are nearest to those of every specialist on its own inputs.

    1. G_t = X_t^T X_t / N, its off-diagonal entries multiplied by `reduction`.
    2. tau^T = (sum_t G_t)^-1 sum_t G_t tau_t^T, by Cholesky in float64. Solving for the task vector rather than the weights is
       the same algebra with errors of the task vector's size.
    3. Parameters without a Gram matrix (embeddings, norms, biases) are averaged.

    Where sum_t G_t is singular, a multiple of the identity is added to every G_t: directions that no input reaches are then
    averaged, and identical specialists are still returned unchanged.

    Args:
        reduction: Multiplier of the off-diagonal entries; 0 weights each input by its energy, 1 is the exact regression.
    """
    grams = [context.find("gram", domain, context.name) for domain in context.domains]
    if any(gram is None for gram in grams):
        return context.vectors.mean(0)
    size = context.base.shape[1]
    left = torch.zeros(size, size, dtype=torch.float64)
    right = torch.zeros(size, context.base.shape[0], dtype=torch.float64)
    for gram, vector in zip(grams, context.vectors, strict=True):
        assert gram is not None
        shrunk = gram.double() * reduction
        shrunk.diagonal().copy_(gram.double().diagonal())
        left += shrunk
        right += shrunk @ vector.double().T
    average = context.vectors.double().mean(0).T
    return solve(left, right, average, context.name).T.float().contiguous()


def solve(left: torch.Tensor, right: torch.Tensor, average: torch.Tensor, name: str) -> torch.Tensor:
    """X with left X = right, drawn towards `average` by the smallest ridge that makes `left` well conditioned.

    Args:
        left: Symmetric, positive semidefinite, float64 (d, d).
        right, average: float64 (d, outputs).
        name: The parameter, for the log.
    """
    unit = float(left.diagonal().mean())
    if unit <= 0:
        return average
    for ridge in (0.0, *RIDGES):
        shift = ridge * unit
        factor, failed = torch.linalg.cholesky_ex(left + shift * torch.eye(len(left), dtype=left.dtype))
        pivots = factor.diagonal().square()
        if not failed and float(pivots.min() / pivots.max()) > SINGULAR:
            return torch.cholesky_solve(right + shift * average, factor)
        logger.warning(
            "RegMean: the Gram matrix of %s has a condition number of at least %.1e; a ridge is added.",
            name,
            float("inf") if failed else float(pivots.max() / pivots.min()),
        )
    return average
