"""How task vectors relate to each other: sums over parameters, from which cosines, conflicts and overlaps follow.

Sums are kept, not ratios: those of a layer or of the whole model are the sums of its tensors'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from mergebench.checkpoints.reader import Checkpoint
from mergebench.kernels.blocks import moved
from mergebench.kernels.elect import elect_block
from mergebench.kernels.relate import count_contests, count_elected, count_pairs, mark, products
from mergebench.kernels.trim import trim
from mergebench.vectors.pieces import base_loader, vector_loader
from mergebench.vectors.walk import BLOCK, Chunk, chunks, ordered


@dataclass
class Relations:
    """Sums over some parameters, of n task vectors. An entry is *large* if its magnitude reaches its task vector's limit.

    Attributes:
        entries: Parameters seen.
        base_squares: Sum of the base's squares.
        products: Inner products, float64 (n, n); the squares of the norms on the diagonal.
        agreements, conflicts: Entries that two move with the same sign, and with opposite ones, int64 (n, n); on the diagonal of
            `agreements` stand the entries that each moves.
        large_agreements, large_conflicts: The same of entries that are large in both.
        elected: Large entries of each whose sign is the one that TIES elects, the sign of the sum of what is large, int64 (n,).
        contests: Entries that two or more move, those of them at which both signs occur, and the same two of large entries, int64 (4,).
    """

    entries: int
    base_squares: float
    products: np.ndarray
    agreements: np.ndarray
    conflicts: np.ndarray
    large_agreements: np.ndarray
    large_conflicts: np.ndarray
    elected: np.ndarray
    contests: np.ndarray

    @classmethod
    def none(cls, n: int) -> Relations:
        """Nothing seen."""
        agreements, conflicts, large_agreements, large_conflicts = np.zeros((4, n, n), np.int64)
        contests = np.zeros(4, np.int64)
        return cls(0, 0.0, np.zeros((n, n)), agreements, conflicts, large_agreements, large_conflicts, np.zeros(n, np.int64), contests)

    def add(self, other: Relations) -> None:
        """Add another part."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def moved(self) -> np.ndarray:
        """Entries that each task vector moves, int64 (n,)."""
        return np.diag(self.agreements)

    @property
    def overlaps(self) -> np.ndarray:
        """Entries that are large in both, int64 (n, n); the diagonal counts each vector's own."""
        return self.large_agreements + self.large_conflicts


def relate(
    base: Checkpoint, specialists: Sequence[Checkpoint], names: Sequence[str], limits: np.ndarray, *, threads: int = 1
) -> Iterator[tuple[str, Relations]]:
    """Walk once over the models; memory holds a block of each for every thread.

    Args:
        base, specialists: The models.
        names: The tensors to look at; of embeddings, the base's rows.
        limits: Bits of the smallest magnitude that is large, of each task vector, uint32 (n,); see `spectrum.Cut`.
        threads: Threads; they change nothing in the result.

    Returns:
        Each tensor's sums, in the order of the names.

    Raises:
        MergebenchError: A value is NaN or infinite.
    """
    found, current = Relations.none(len(specialists)), None
    for name, part in ordered(chunks(base, names), lambda chunk: (chunk.name, _relate_chunk(base, specialists, chunk, limits)), threads):
        if current not in (None, name):
            yield current, found
            found = Relations.none(len(specialists))
        current = name
        found.add(part)
    if current is not None:
        yield current, found


def _relate_chunk(base: Checkpoint, specialists: Sequence[Checkpoint], chunk: Chunk, limits: np.ndarray) -> Relations:
    n, size = len(specialists), chunk.stop - chunk.start
    found, spares = Relations.none(n), np.zeros(n, np.int64)
    load, loaders = base_loader(base, *chunk), [vector_loader(specialist, *chunk) for specialist in specialists]
    for place in range(0, size, BLOCK):
        width = min(BLOCK, size - place)
        if place == 0 or width < BLOCK:
            origin, vectors, trimmed = np.empty(width, np.float32), np.empty((n, width), np.float32), np.empty((n, width), np.float32)
            states, scratch, signs = np.empty((n, width), np.uint8), np.empty((3, width), np.uint8), np.empty(width, np.float32)
        load(place, origin)
        for subtract, vector in zip(loaders, vectors, strict=True):
            subtract(place, origin, vector)
        found.entries += width
        found.base_squares += moved(origin)[1]
        products(vectors, found.products)
        mark(vectors, limits, states)
        count_pairs(states, found.agreements, found.conflicts, found.large_agreements, found.large_conflicts)
        found.contests += count_contests(states, *scratch)
        trim(vectors, limits, spares, trimmed)
        elect_block(trimmed, signs, 0.0)
        count_elected(trimmed, signs, found.elected)
    return found
