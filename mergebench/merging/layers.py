"""Merging layer after layer, each on inputs that have passed through the layers merged before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mergebench.errors import MergebenchError
from mergebench.merging.context import Matrices
from mergebench.merging.directions import whole_tensor
from mergebench.merging.models import Models
from mergebench.merging.registry import Method

if TYPE_CHECKING:
    from torch import Tensor


class Propagation(Protocol):
    """Calibration inputs of every domain on their way through the model that is being merged.

    A stage is a set of parameters that an input meets together: the embedding, each layer, and what follows the last layer.

    Attributes:
        device: Where stages are run, and merged: "cpu", "cuda".
    """

    device: str

    def stages(self, names: Sequence[str]) -> list[list[str]]:
        """These parameters, stage by stage."""
        ...

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Start at stage 0, or take up what was kept of a merge with this identity, a JSON value that decides the merged weights."""
        ...

    def finished(self, stage: int) -> Mapping[str, Tensor] | None:
        """The directions that were kept of a stage, as `advance` was given them; None if it is yet to be merged."""
        ...

    def measure(self, stage: int, domain: str, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Gram matrices of the inputs of a stage's linear layers on a domain's samples, if the stage had these weights.

        Layers with the same inputs have the very same matrix, float32 (d, d), by parameter name. Weights are read when they are asked for.
        """
        ...

    def advance(self, stage: int, weights: Mapping[str, Tensor], directions: Mapping[str, Tensor]) -> None:
        """Give a stage its merged weights, pass all inputs on, and keep the directions. Stage 0 starts anew."""
        ...


def layerwise(models: Models, method: Method, values: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """The directions of a method of scope "layer".

    Memory holds one layer's weights, of one specialist at a time, its merged weights, and its Gram matrices for every domain.

    Args:
        models: The base, the specialists, and the calibration inputs (`models.propagation`).
        method: The method; its `solve` is called for parameters with the same inputs.
        values: Its parameters.
        names: The parameters that are merged; the others keep the base's values on the way.

    Yields:
        (tensor name, direction: float32, the tensor's shape), in the order in which inputs meet them.

    Raises:
        MergebenchError: There are no calibration inputs.
    """
    if models.propagation is None or method.solve is None:
        raise MergebenchError(
            f"{method.name} passes calibration samples through the layers that it has merged, and none were given; "
            "run it as a stage of the workflow, set `propagation` of the models (merging.statistics.propagation), "
            "or use regmean with Gram matrices."
        )
    propagation, chosen = models.propagation, set(names)
    propagation.begin({"method": method.name, "values": dict(values), "names": list(names), "models": models.identity()})
    floating = [name for name in models.base.names if models.base.tensors[name].floating]
    for stage, members in enumerate(propagation.stages(floating)):
        found = propagation.finished(stage)
        if found is None:
            found = _merged(models, method, values, stage, members, chosen)
            weights = {name: _rounded(models, name, found.get(name)) for name in members}
            propagation.advance(stage, weights, found)
            del weights
        yield from found.items()


def _merged(
    models: Models, method: Method, values: Mapping[str, Any], stage: int, members: Sequence[str], chosen: set[str]
) -> dict[str, Tensor]:
    """The directions of a stage, on the CPU."""
    assert method.solve is not None
    grams = {domain: models.propagation.measure(stage, domain, _Weights(models, row, members)) for row, domain in enumerate(models.domains)}
    found: dict[str, Tensor] = {}
    for group in _sharing([name for name in members if name in chosen], grams):
        ((*directions,),) = method.solve([_layer(models, name, grams) for name in group], [dict(values)])
        found.update({name: direction.cpu() for name, direction in zip(group, directions, strict=True)})
    return found


class _Weights(Mapping[str, "Tensor"]):
    """A specialist's parameters of one stage, of the shapes that are merged; each is mapped when it is asked for."""

    def __init__(self, models: Models, row: int, names: Sequence[str]) -> None:
        self._models, self._row, self._names = models, row, names

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        values, shape = self._models.specialist(self._row).tensor(name), self._models.shape(name)
        return values[: shape[0]] if shape else values

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _rounded(models: Models, name: str, direction: Tensor | None = None) -> Tensor:
    """The merged values as the base's dtype holds them, in that dtype."""
    base = whole_tensor(models, name, None)
    return (base if direction is None else base + direction).to(models.base.tensor(name).dtype)


def _layer(models: Models, name: str, grams: Mapping[str, Mapping[str, Tensor]]) -> Matrices:
    device = models.propagation.device
    return Matrices(
        name,
        models.shape(name),
        models.domains,
        lambda row: whole_tensor(models, name, row).to(device),
        device=device,
        find=lambda kind, domain, tensor: grams[domain].get(tensor) if kind == "gram" else None,
    )


def _sharing(names: Sequence[str], grams: Mapping[str, Mapping[str, Tensor]]) -> list[list[str]]:
    """Parameters in groups that have the same Gram matrix in every domain; one without a matrix stands alone."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name in names:
        found = [matrices.get(name) for matrices in grams.values()]
        key = (name,) if any(gram is None for gram in found) else tuple(id(gram) for gram in found)
        groups.setdefault(key, []).append(name)
    return list(groups.values())
