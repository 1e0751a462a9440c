"""Merging layer after layer, each on inputs that have passed through the layers merged before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mergebench.errors import MergebenchError
from mergebench.merging.context import Matrices
from mergebench.merging.directions import whole_tensor
from mergebench.merging.lazy import torch
from mergebench.merging.models import Models
from mergebench.merging.registry import Method

if TYPE_CHECKING:
    from torch import Tensor


class Propagation(Protocol):
    """Calibration inputs of every domain on their way through the model that is being merged.

    A stage is a set of parameters that an input meets together: the embedding, each layer, and what follows the last layer.
    """

    def stages(self, names: Sequence[str]) -> list[list[str]]:
        """These parameters, stage by stage."""
        ...

    def measure(self, stage: int, domain: str, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Gram matrices of the inputs of a stage's linear layers on a domain's samples, if the stage had these weights.

        Layers with the same inputs have the very same matrix, float32 (d, d), by parameter name.
        """
        ...

    def advance(self, stage: int, weights: Mapping[str, Tensor]) -> None:
        """Give a stage its merged weights and pass all inputs on. Stage 0 starts anew."""
        ...


def layerwise(models: Models, method: Method, values: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """The directions of a method of scope "layer".

    Memory holds one layer's merged weights, and its Gram matrices for every domain.

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
            "set `propagation` of the models (merging.statistics.propagation), or use regmean with Gram matrices."
        )
    chosen = set(names)
    floating = [name for name in models.base.names if models.base.tensors[name].floating]
    for stage, members in enumerate(models.propagation.stages(floating)):
        grams = {
            domain: models.propagation.measure(stage, domain, {name: _weights(models, name, row) for name in members})
            for row, domain in enumerate(models.domains)
        }
        merged = {name: _rounded(models, name) for name in members if name not in chosen}
        for group in _sharing([name for name in members if name in chosen], grams):
            ((*found,),) = method.solve([_layer(models, name, grams) for name in group], [dict(values)])
            for name, direction in zip(group, found, strict=True):
                merged[name] = _rounded(models, name, direction)
                yield name, direction
        models.propagation.advance(stage, merged)


def _weights(models: Models, name: str, row: int) -> Tensor:
    return whole_tensor(models, name, None) + whole_tensor(models, name, row)


def _rounded(models: Models, name: str, direction: Tensor | None = None) -> Tensor:
    """The merged values as the base's dtype holds them, float32."""
    base = whole_tensor(models, name, None)
    return base if direction is None else (base + direction).to(models.base.tensor(name).dtype).to(torch.float32)


def _layer(models: Models, name: str, grams: Mapping[str, Mapping[str, Tensor]]) -> Matrices:
    return Matrices(
        name,
        models.base.tensors[name].shape,
        models.domains,
        lambda row: whole_tensor(models, name, row),
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
