"""The merge engine: directions and merged checkpoints, in one streaming walk over the inputs.

Inputs are memory-mapped. Threads take chunks of a tensor; inside a chunk, blocks that fit a core's cache are loaded as float32, every
direction of the plan is computed from them (by compiled kernels, or the methods' torch definitions), every scale is applied, and the
result is rounded once and written to its place in the output. Nothing is the size of a model, and for elementwise methods nothing is
the size of a tensor. No result depends on chunks, shards, threads or the order in which specialists are given.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mergebench import __version__
from mergebench.checkpoints.layout import MAX_SHARD_BYTES, Dtype, Layout
from mergebench.checkpoints.shards import ShardFolder
from mergebench.merging.directions import Arithmetic
from mergebench.merging.emit import Piece, Taker, emit_all
from mergebench.merging.lazy import torch
from mergebench.merging.models import Models
from mergebench.merging.outputs import Output, write
from mergebench.merging.plan import Plan, Recipe, plan
from mergebench.merging.registry import get
from mergebench.merging.report import Report
from mergebench.merging.scope import ALL
from mergebench.vectors.walk import Chunk

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[int, int], None]
Consume = Callable[[Piece], None]

# Where an unfinished output keeps what it has, unless the caller names another place.
PARTIAL = ".partial"


def grid(
    models: Models,
    recipes: Sequence[Recipe],
    consume: Consume,
    *,
    scope: str = ALL,
    threads: int = 1,
    device: str = "cpu",
    arithmetic: Arithmetic = "float32",
    progress: Progress | None = None,
) -> tuple[Plan, list[Report]]:
    """Compute all distinct directions of a list of recipes in one pass over the inputs.

    Args:
        models: The base, the specialists and what was measured on them.
        recipes: The merges; those that share a direction cost nothing more.
        consume: Takes each piece, from `threads` threads at a time and in any order. Its arrays are overwritten afterwards: add, write
            or copy. Directions of elementwise methods come together, those of other methods in pieces of their own.
        scope: Which parameters are merged, see `merging.scope`.
        threads: Threads; they change nothing in the result.
        device: Where torch definitions are computed: "cpu", "cuda". Kernels run on the CPU alone.
        arithmetic: See `Direction`.
        progress: Told (tensors done, tensors in all).

    Returns:
        The plan, whose `members` say which direction and scale each recipe has, and one report per direction.

    Raises:
        MergebenchError: A recipe is wrong, a statistic is missing, or an input is not finite.
    """
    planned = plan(models, recipes, scope=scope, threads=threads, device=device, arithmetic=arithmetic)
    reports = [Report(models.domains, thresholds=planned.cuts.record(direction.requests)) for direction in planned.directions]

    def take(chunk: Chunk) -> Taker:
        return lambda piece: consume(piece) if piece is not None else None

    names, finished = planned.names, set()
    for done in emit_all(models, planned, range(len(planned.directions)), names, take, threads):
        for number, facts in done.facts.items():
            reports[number].add(done.chunk.name, facts)
        if progress and done.chunk.stop == models.size(done.chunk.name):
            finished.add(done.chunk.name)
            progress(len(finished), len(names))
    return planned, reports


def directions(
    models: Models,
    method: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    scope: str = ALL,
    seed: int = 0,
    report: Report | None = None,
    threads: int = 1,
    device: str = "cpu",
    arithmetic: Arithmetic = "float32",
) -> Iterator[tuple[str, Tensor]]:
    """The direction of one method with one set of parameters, a whole tensor at a time: merged = base + scale * direction.

    One direction serves every scale, so a "scale" among the parameters is ignored.

    Args:
        models, scope, threads, device, arithmetic: As in `grid`.
        method: The method's name.
        parameters: The method's parameters; what is absent has its default.
        seed: Seed of methods that draw random numbers.
        report: Filled in while the directions are consumed.

    Yields:
        (tensor name, direction: float32, the tensor's shape, on the CPU), for the parameters in scope.

    Raises:
        MergebenchError: A parameter is wrong, a statistic is missing, or an input is not finite.
    """
    recipe = Recipe(method, parameters or {}, seed)
    planned = plan(models, [recipe], scope=scope, threads=threads, device=device, arithmetic=arithmetic)
    yield from planned_direction(models, planned, 0, threads=threads, report=report)


def planned_direction(
    models: Models, planned: Plan, number: int, *, threads: int = 1, report: Report | None = None
) -> Iterator[tuple[str, Tensor]]:
    """One direction of a plan, as `directions` yields it."""
    if report is not None:
        report.thresholds = planned.cuts.record(planned.directions[number].requests)
    # Whole parameters come in the order that suits the method; pieces of others are gathered tensor by tensor.
    groups = [planned.names] if planned.directions[number].whole else [[name] for name in planned.names]
    for names in groups:
        gathered: dict[str, np.ndarray] = {}

        def take(chunk: Chunk, gathered: dict[str, np.ndarray] = gathered) -> Taker:
            whole = gathered.setdefault(chunk.name, np.empty(models.size(chunk.name), np.float32))

            def taker(piece: Piece | None) -> None:
                if piece is not None:
                    whole[piece.offset : piece.offset + piece.base.size] = piece.directions[number]

            return taker

        for done in emit_all(models, planned, [number], names, take, threads):
            name = done.chunk.name
            if report is not None:
                report.add(name, done.facts[number])
            if done.chunk.stop == models.size(name):
                yield name, torch.from_numpy(gathered.pop(name)).reshape(models.shape(name))


def apply(base: Tensor, direction: Tensor, scale: float) -> Tensor:
    """base + scale * direction in float32, a rounded product and a rounded sum. Callers round it, once, to the dtype that they need."""
    return base.to(torch.float32) + direction * scale


def merge(
    models: Models,
    method: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    folder: Path,
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """Write base + scale * direction to a checkpoint folder.

    Args:
        models, seed: As in `directions`.
        method, parameters: The method, its parameters and its scale.
        folder: Where to write.
        options: As in `merge_many`.

    Returns:
        The recipe as it was carried out, what it turned out to be, and the digest of the realised weights.
    """
    return merge_many(models, [(Recipe(method, parameters or {}, seed), folder)], **options)[0]


def merge_many(
    models: Models,
    merges: Sequence[tuple[Recipe, Path]],
    *,
    scope: str = ALL,
    dtype: Dtype = "base",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    threads: int = 1,
    device: str = "cpu",
    arithmetic: Arithmetic = "float32",
    state: Path | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Write several merges of the same models in one walk over the inputs.

    A killed merge goes on where it was, file by file, when it is called again with the same arguments.

    Args:
        models, scope, threads, device, arithmetic: As in `grid`.
        merges: The recipes and the folders of their checkpoints.
        dtype: Of the outputs; "base" keeps the base's.
        max_shard_bytes: Bytes of tensors per file.
        state: Where unfinished outputs are kept; it is left to the caller to remove. Default: a folder `.partial` in each output.
        progress: Told (tensors written, tensors in all).

    Returns:
        For each merge {"recipe", "realised", "realised_digest"}: the recipe as it was carried out, what it turned out to be (see
        `Report.record`), and the digest of the weights (see `checkpoints.digest.realised_digest`).

    Raises:
        MergebenchError: A recipe is wrong, an input or a result is not finite, or a file cannot be written.
    """
    planned = plan(models, [recipe for recipe, _ in merges], scope=scope, threads=threads, device=device, arithmetic=arithmetic)
    layout = Layout.of(models.base, dtype=dtype, max_shard_bytes=max_shard_bytes, shapes=models.rows.shapes)
    settings = {"scope": scope, "dtype": dtype, "arithmetic": arithmetic, "domains": list(models.domains)}
    outputs = []
    for place, ((recipe, folder), (number, scale)) in enumerate(zip(merges, planned.members, strict=True)):
        values = get(recipe.method).validate(recipe.parameters)
        carried_out = {"method": recipe.method, "parameters": values, "seed": recipe.seed, **settings}
        partial = state / str(place) if state else folder / PARTIAL
        identity = {**carried_out, "inputs": models.identity(), "version": __version__}
        shards = ShardFolder(models.base, layout, partial, recipe=identity, dtype=dtype, rows=models.rows)
        report = Report(models.domains, thresholds=planned.cuts.record(planned.requests[place]))
        outputs.append(Output(models, number, scale, folder, shards, carried_out, report))
    try:
        write(models, planned, outputs, threads, progress)
    finally:
        for output in outputs:
            output.shards.abandon()
    for output in outputs:
        output.shards.publish(output.folder)
        if state is None:
            shutil.rmtree(output.shards.folder)
    return [output.record() for output in outputs]
