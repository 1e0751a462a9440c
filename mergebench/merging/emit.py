"""The walk that computes directions and hands them over piece by piece."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mergebench.kernels.blocks import moved, sign_conflicts
from mergebench.merging.cuts import Cuts
from mergebench.merging.directions import Direction
from mergebench.merging.layers import layerwise
from mergebench.merging.lazy import torch
from mergebench.merging.models import Models
from mergebench.merging.passes import blocks
from mergebench.merging.plan import Plan
from mergebench.merging.report import Facts
from mergebench.vectors.walk import BLOCK, Chunk, chunks, ordered

# Threads of the linear algebra in methods that see whole parameters, whatever a job has: results are the same on all machines that have
# the same libraries.
SOLVER_THREADS = 4


@dataclass(frozen=True)
class Piece:
    """A part of one tensor, with the directions computed there. Arrays are overwritten once the consumer has returned.

    Attributes:
        name: The tensor's name.
        offset: Place of its first entry in the flattened tensor.
        base: The base's values, float32 (m,).
        directions: Number of the direction in the plan -> its values, float32 (m,).
    """

    name: str
    offset: int
    base: np.ndarray
    directions: Mapping[int, np.ndarray]


# Made for each chunk, in the thread that works on it: takes the chunk's pieces in order. What it returns for None, after the last
# piece, is handed on in the order of the chunks.
Taker = Callable[[Piece | None], Any]


@dataclass(frozen=True)
class Done:
    """A chunk whose pieces have been handed over.

    Attributes:
        chunk: Which.
        facts: Number of the direction -> what it turned out to be there.
        result: What the chunk's taker returned at the end.
    """

    chunk: Chunk
    facts: dict[int, Facts]
    result: Any


def emit_all(
    models: Models, planned: Plan, numbers: Iterable[int], names: Sequence[str], take: Callable[[Chunk], Taker], threads: int
) -> Iterator[Done]:
    """Compute some directions of a plan and hand them over: those of elementwise methods together, the others one by one.

    Args:
        models: The inputs.
        planned: The plan.
        numbers: Which of its directions.
        names: Which tensors.
        take: Makes a chunk's taker.
        threads: Threads that work on chunks.

    Yields:
        Chunks that are done. For each direction the chunks of a tensor come in order.
    """
    chosen = {number: planned.directions[number] for number in sorted(numbers)}
    elementwise = {number: direction for number, direction in chosen.items() if not direction.whole}
    whole = {number: direction for number, direction in chosen.items() if direction.whole}
    if elementwise:
        yield from emit(models, elementwise, planned.cuts, names, take, threads)
    if whole:
        yield from emit_whole(models, whole, planned, names, take)


def emit(
    models: Models, directions: Mapping[int, Direction], cuts: Cuts, names: Iterable[str], take: Callable[[Chunk], Taker], threads: int
) -> Iterator[Done]:
    """Compute directions of elementwise methods and hand them over.

    Args:
        models: The inputs.
        directions: By their number in the plan, prepared (`passes.prepare`).
        cuts: Their thresholds.
        names: Which tensors, in which order.
        take: Makes a chunk's taker.
        threads: Threads that work on chunks.

    Yields:
        Chunks that are done, in order.
    """

    def work(chunk: Chunk) -> Done:
        taker, facts = take(chunk), {number: Facts() for number in directions}
        size = min(BLOCK, chunk.stop - chunk.start)
        buffers = {number: np.empty(size, np.float32) for number in directions}
        signs = np.empty(size, np.uint8)
        for shared in blocks(models, chunk, cuts):
            count = shared.base.size
            conflicts = sign_conflicts(shared.vectors, signs[:count])
            found = {number: buffer[:count] for number, buffer in buffers.items()}
            for number, direction in directions.items():
                direction.block(shared, found[number], facts[number])
                _measure(facts[number], found[number], conflicts)
            taker(Piece(shared.name, shared.offset, shared.base, found))
        return Done(chunk, facts, taker(None))

    return ordered(chunks(models, names), work, threads)


def emit_whole(
    models: Models, directions: Mapping[int, Direction], planned: Plan, names: Sequence[str], take: Callable[[Chunk], Taker]
) -> Iterator[Done]:
    """As `emit`, for methods that must see whole parameters: one parameter after the other, in the order that suits the method."""
    wanted = set(names)
    for number, name, direction, facts in _whole(models, directions, planned.names, wanted):
        if name in wanted:
            yield from _hand_over(models, planned.cuts, number, name, direction, facts, take)
        del direction  # not kept while the next one is computed


def _hand_over(
    models: Models, cuts: Cuts, number: int, name: str, direction: np.ndarray, facts: Facts, take: Callable[[Chunk], Taker]
) -> Iterator[Done]:
    """Hand over the pieces of one whole direction."""
    for chunk in chunks(models, [name]):
        taker, part = take(chunk), Facts()
        for shared in blocks(models, chunk, cuts):
            count = shared.base.size
            values = direction[shared.offset : shared.offset + count]
            _measure(part, values, sign_conflicts(shared.vectors, np.empty(count, np.uint8)))
            taker(Piece(name, shared.offset, shared.base, {number: values}))
        if chunk.start == 0:
            part.add(facts)
        yield Done(chunk, {number: part}, taker(None))


def _whole(
    models: Models, directions: Mapping[int, Direction], names: Sequence[str], wanted: set[str]
) -> Iterator[tuple[int, str, np.ndarray, Facts]]:
    """(number of the direction, tensor, its flattened direction, what the method observed), at least for the wanted tensors.

    What is computed together does not depend on what is wanted, so that the bytes do not depend on the files that are missing.
    """
    with _solver_threads():
        # Directions of one method share what it prepares; they differ in parameters.
        for _, group in itertools.groupby(directions, key=lambda number: directions[number].method.name):
            numbers = list(group)
            method = directions[numbers[0]].method
            if method.scope == "layer":
                for number in numbers:
                    for name, found in layerwise(models, method, directions[number].values, names):
                        yield number, name, _flat(found), Facts()
            elif method.solve is not None:
                for members in _sharing(models, names):
                    if wanted.isdisjoint(members):
                        continue
                    contexts = [directions[numbers[0]].matrices(models, name, Facts()) for name in members]
                    solutions = method.solve(contexts, [directions[number].values for number in numbers])
                    for number, solution in zip(numbers, solutions, strict=True):
                        solved = dict(zip(members, solution, strict=True))
                        del solution
                        while solved:
                            name = next(iter(solved))
                            yield number, name, _flat(solved.pop(name)), Facts()
            else:
                for name in sorted(wanted):
                    for number in numbers:
                        facts = Facts()
                        found = method.direction(directions[number].matrices(models, name, facts), **directions[number].values)
                        yield number, name, _flat(found), facts


@contextmanager
def _solver_threads() -> Iterator[None]:
    """A fixed number of threads for linear algebra: the last bits of its results depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(SOLVER_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _sharing(models: Models, names: Sequence[str]) -> list[list[str]]:
    """The tensors in groups whose Gram matrices are the same ones in every domain."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name in names:
        stored = tuple(models.stored_name("gram", domain, name) for domain in models.domains)
        groups.setdefault(stored if all(stored) else (name,), []).append(name)
    return list(groups.values())


def _flat(direction: Any) -> np.ndarray:
    return direction.detach().reshape(-1).float().cpu().numpy()


def _measure(facts: Facts, direction: np.ndarray, conflicts: int) -> None:
    count, squares = moved(direction)
    facts.add(Facts(entries=direction.size, conflicts=int(conflicts), moved=int(count), squares=float(squares)))
