"""RegMean++."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from mergebench.merging.context import Matrices
from mergebench.merging.registry import Range, Reference, method
from mergebench.merging.solvers import regress

if TYPE_CHECKING:
    from torch import Tensor

    from mergebench.artifacts import Job
    from mergebench.merging.layers import Propagation
    from mergebench.merging.models import Models


def solve(layers: Sequence[Matrices], parameters: Sequence[Mapping[str, Any]]) -> Iterator[list[Tensor]]:
    """The directions of layers that share their inputs, for each set of parameters."""
    first = layers[0]
    grams = [gram.to(first.device) for domain in first.domains if (gram := first.find("gram", domain, first.name)) is not None]
    if len(grams) < len(first.domains):
        yield from ([layer.average() for layer in layers] for _ in parameters)
    else:
        yield from regress(grams, layers, [each["reduction"] for each in parameters])


def propagation(job: Job, models: Models) -> Propagation:
    """The calibration samples of a job, see `statistics.propagation.of_job`."""
    from mergebench.merging.statistics.propagation import of_job

    return of_job(job, models)


@method(
    title="RegMean++",
    reference=Reference("Nguyen et al., 2025", "2508.03121"),
    scope="layer",
    data="training",
    grid={"reduction": (0.1, 0.3, 0.5, 0.7, 0.9)},
    note="The grid is that of RegMean.",
    solve=solve,
    propagation=propagation,
)
def regmean_plus_plus(context: Matrices, *, reduction: Annotated[float, Range(0, 1)] = 0.9) -> Tensor:
    """RegMean on the inputs that the merged model's layers really get.

    1. Pass every domain's samples through the layers merged so far.
    2. G_t = X_t^T X_t / N of the next layer's inputs, with specialist t's weights in that layer alone; off-diagonal entries multiplied by
       `reduction`.
    3. tau^T = (sum_t G_t)^-1 sum_t G_t tau_t^T for its linear layers, as in RegMean; its other parameters are averaged.

    Args:
        reduction: Multiplier of the off-diagonal entries; 0 weights each input by its energy, 1 is the exact regression.
    """
    ((direction,),) = solve([context], [{"reduction": reduction}])
    return direction
