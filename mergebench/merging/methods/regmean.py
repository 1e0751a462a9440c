"""RegMean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mergebench.merging.context import Matrices
from mergebench.merging.registry import Range, Reference, method
from mergebench.merging.solvers import average_released, regress, regress_released

if TYPE_CHECKING:
    from torch import Tensor

Precision = Literal["float64", "bfloat16"]


def solve(layers: Sequence[Matrices], parameters: Sequence[Mapping[str, Any]]) -> Iterator[list[Tensor]]:
    """The directions of layers that share their Gram matrices, for each set of parameters."""
    first = layers[0]
    grams = [gram.to(first.device) for domain in first.domains if (gram := first.find("gram", domain, first.name)) is not None]
    if len(grams) < len(first.domains):
        for each in parameters:
            yield [layer.average() if each["precision"] == "float64" else average_released(layer) for layer in layers]
        return
    exact = regress(grams, layers, [each["reduction"] for each in parameters if each["precision"] == "float64"])
    for each in parameters:
        if each["precision"] == "float64":
            yield next(exact)
        else:
            yield [regress_released(grams, layer, each["reduction"]) for layer in layers]


@method(
    title="RegMean",
    reference=Reference("Jin et al., 2023", "2212.09849"),
    scope="matrix",
    data="training",
    statistics=("gram",),
    grid={"reduction": (0.1, 0.3, 0.5, 0.7, 0.9)},
    note="MergeBench prints 5 values and not which; 0.1, 0.3, 0.5, 0.7, 0.9 are assumed.",
    solve=solve,
)
def regmean(context: Matrices, *, reduction: Annotated[float, Range(0, 1)] = 0.9, precision: Precision = "float64") -> Tensor:
    """The linear layer whose outputs are nearest to those of every specialist on its own inputs.

    1. G_t = X_t^T X_t / N, its off-diagonal entries multiplied by `reduction`.
    2. tau^T = (sum_t G_t)^-1 sum_t G_t tau_t^T, by Cholesky in float64. Solving for the task vector rather than the weights is
       the same algebra with errors of the task vector's size.
    3. Parameters without a Gram matrix (embeddings, norms, biases) are averaged.

    Where sum_t G_t is singular, a multiple of the identity is added to every G_t: directions that no input reaches are then
    averaged, and identical specialists are still returned unchanged.

    Args:
        reduction: Multiplier of the off-diagonal entries; 0 weights each input by its energy, 1 is the exact regression.
        precision: Of the regression; "bfloat16" is the released code's chain for the weights, with an inverse rounded to bfloat16.
    """
    ((direction,),) = solve([context], [{"reduction": reduction, "precision": precision}])
    return direction
