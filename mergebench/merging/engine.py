"""The merge engine: directions and merged checkpoints, one parameter at a time.

`directions` and `merge` are the interface that stages and tuning use; what happens between them is the engine's own affair. This
engine holds one parameter of the base and of every specialist in float32, computes in float32 (solvers in float64) in a fixed
order, and rounds once, when a tensor is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from mergebench.checkpoints.writer import MAX_SHARD_BYTES, CheckpointWriter, Dtype
from mergebench.merging.context import Tensors
from mergebench.merging.models import Models
from mergebench.merging.registry import SCALE, Method, get
from mergebench.merging.report import Report
from mergebench.merging.scope import ALL, names_in_scope
from mergebench.vectors.vector import task_vector

Progress = Callable[[int, int], None]


def directions(
    models: Models,
    method: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    scope: str = ALL,
    seed: int = 0,
    report: Report | None = None,
) -> Iterator[tuple[str, torch.Tensor]]:
    """The direction of one method with one set of parameters: merged = base + scale * direction.

    One direction serves every scale, so a "scale" among the parameters is ignored.

    Args:
        models: The base, the specialists and what was measured on them.
        method: The method's name.
        parameters: The method's parameters; what is absent has its default.
        scope: Which parameters are merged, see `merging.scope`.
        seed: Seed of methods that draw random numbers.
        report: Filled in while the directions are consumed.

    Yields:
        (tensor name, direction: float32, the tensor's shape), for the parameters in scope, in the order of their names.

    Raises:
        MergebenchError: A parameter is wrong, or a statistic is missing.
    """
    chosen = get(method)
    values, _ = chosen.split(parameters)
    models.require(chosen.statistics)
    names = names_in_scope(models.base, scope)
    found = report or Report(models.domains)
    threshold = _thresholds(models, names)
    total = _total(chosen, values, (_tensors(models, name, seed, threshold) for name in names))
    for name in names:
        tensors = _tensors(models, name, seed, threshold, total, found)
        direction = chosen.direction(tensors, **values)
        found.add(tensors.vectors, direction)
        yield name, direction


def apply(base: torch.Tensor, direction: torch.Tensor, scale: float) -> torch.Tensor:
    """base + scale * direction in float32. Callers round it, once, to the dtype that they need."""
    return torch.add(base.to(torch.float32), direction, alpha=scale)


def merge(
    models: Models,
    method: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    folder: Path,
    scope: str = ALL,
    seed: int = 0,
    dtype: Dtype = "base",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write base + scale * direction to a checkpoint folder.

    Args:
        models, method, scope, seed: As in `directions`.
        parameters: The method's parameters and its scale.
        folder: Where to write; created if absent.
        dtype: Of the output; "base" keeps the base's.
        max_shard_bytes: Bytes of tensors per file.
        progress: Told (tensors written, tensors in all).

    Returns:
        The recipe as it was carried out, and the realised densities, norm and sign conflicts.
    """
    values, scale = get(method).split(parameters)
    report = Report(models.domains)
    names = models.base.names
    merged = set()
    with CheckpointWriter(models.base, folder, dtype=dtype, max_shard_bytes=max_shard_bytes) as writer:
        for name, direction in directions(models, method, values, scope=scope, seed=seed, report=report):
            writer.write(name, apply(models.base.tensor(name), direction, scale))
            merged.add(name)
            if progress:
                progress(len(merged), len(names))
        for name in names:
            if name not in merged:
                writer.copy(name)
    recipe = {
        "method": method,
        "parameters": values | ({SCALE: scale} if get(method).scaled else {}),
        "scope": scope,
        "seed": seed,
        "dtype": dtype,
        "domains": list(models.domains),
    }
    return {"recipe": recipe, "realised": report.record()}


def _tensors(
    models: Models,
    name: str,
    seed: int,
    threshold: Callable[[str, float, str], tuple[float, bool]],
    total: torch.Tensor | None = None,
    report: Report | None = None,
) -> Tensors:
    base = models.base.tensor(name).to(torch.float32)
    vectors = torch.empty((len(models.domains), *base.shape), dtype=torch.float32)
    for row, specialist in enumerate(models.specialists.values()):
        vectors[row] = task_vector(models.base, specialist, name)
    observe = {"observe": report.masks} if report else {}
    return Tensors(
        name=name,
        base=base,
        vectors=vectors,
        domains=models.domains,
        seed=seed,
        total=total,
        threshold=threshold,
        find=models.statistic,
        **observe,
    )


def _thresholds(models: Models, names: list[str]) -> Callable[[str, float, str], tuple[float, bool]]:
    """Thresholds over the parameters in scope, each found once."""
    known: dict[tuple[str, float, str], tuple[float, bool]] = {}

    def threshold(domain: str, density: float, ties: str) -> tuple[float, bool]:
        key = (domain, density, ties)
        if key not in known:
            found = models.threshold(domain, density, ties, names)
            known[key] = (found.value, found.strict)
        return known[key]

    return threshold


def _total(method: Method, values: Mapping[str, Any], tensors: Iterator[Tensors]) -> torch.Tensor | None:
    """The method's own sum over all parameters, if it asks for one: a walk before the walk."""
    total: torch.Tensor | None = None
    if method.total is None:
        return None
    for each in tensors:
        part = method.total(each, **values)
        if part is None:
            return None
        total = part if total is None else total + part
    return total
