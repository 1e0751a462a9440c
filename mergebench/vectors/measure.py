"""Measure the spectra of several task vectors in one walk over the files.

The walk counts coarse bins, and at the same time the values inside those bins in which a small sample expects the thresholds. Where the
sample was wrong, `refine` walks again, over the tensors alone that have entries in the bins it needs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mergebench.checkpoints.reader import Checkpoint
from mergebench.kernels.blocks import moved
from mergebench.kernels.histogram import COARSE_BINS, FINE_BINS, LANES, collect, count_magnitudes, tally
from mergebench.vectors.pieces import base_loader, vector_loader
from mergebench.vectors.spectrum import Scope, Spectrum, Ties
from mergebench.vectors.walk import BLOCK, Chunk, chunks, ordered

# The sample: pieces of this many entries, one per stride, at most so many.
SAMPLE, STRIDE, SAMPLES = 1 << 10, 1 << 16, 1 << 12

# A sampled rank is trusted to this many standard deviations; entries of one piece resemble each other.
MARGIN = 12.0

MOST_BINS = 64


class _Facts(NamedTuple):
    """What one chunk adds to a tensor: per task vector, coarse counts (COARSE_BINS,), nonzero entries, squares, largest magnitude."""

    counts: np.ndarray
    nonzeros: list[int]
    squares: list[float]
    tops: list[int]


class _Fine:
    """Counts of the values inside some coarse bins of one task vector, added to by several threads.

    Attributes:
        places: The bins.
        wanted: 1 for these bins: uint8 (COARSE_BINS,).
    """

    def __init__(self, places: Iterable[int]) -> None:
        self.places = sorted(set(places))
        self.wanted = np.zeros(COARSE_BINS, np.uint8)
        self.wanted[self.places] = 1
        self._slots = np.zeros(COARSE_BINS, np.int32)
        self._slots[self.places] = np.arange(len(self.places))
        self._counts = np.zeros((len(self.places), FINE_BINS), np.int64)
        self._lock = threading.Lock()

    def add(self, caught: np.ndarray) -> None:
        if caught.size:
            with self._lock:
                tally(caught, self._slots, self._counts)

    def counts(self) -> dict[int, np.ndarray]:
        return dict(zip(self.places, self._counts, strict=True))


def measure(
    base: Checkpoint,
    specialists: Sequence[Checkpoint],
    names: Sequence[str],
    *,
    densities: Sequence[Iterable[float]] = (),
    origins: Sequence[Mapping[str, str]] = (),
    threads: int = 1,
) -> list[Spectrum]:
    """The spectra of the task vectors specialist - base.

    Args:
        base, specialists: The models.
        names: The tensors to measure, sorted.
        densities: For each specialist, the densities whose thresholds need no further walk.
        origins: For each specialist, facts to keep with the spectrum.
        threads: Threads; they change nothing in the result.

    Returns:
        One spectrum per specialist.

    Raises:
        MergebenchError: A value is NaN or infinite.
    """
    wanted = [sorted(set(each)) for each in densities] or [[] for _ in specialists]
    fine = [_Fine(_expected_bins(*sampled, wanted[row])) for row, sampled in enumerate(_sample(base, specialists, names, wanted))]

    def work(chunk: Chunk) -> tuple[Chunk, _Facts]:
        return chunk, _measure_chunk(base, specialists, chunk, fine)

    spectra = _assemble(base, names, len(specialists), ordered(chunks(base, names), work, threads))
    for row, spectrum in enumerate(spectra):
        spectrum.origin = dict(origins[row]) if origins else {}
        spectrum.fine = {(None, place): counts for place, counts in fine[row].counts().items()}
    refine(base, specialists, spectra, [_ranked(spectrum, each) for spectrum, each in zip(spectra, wanted, strict=True)], threads=threads)
    return spectra


def refine(
    base: Checkpoint,
    specialists: Sequence[Checkpoint],
    spectra: Sequence[Spectrum],
    bins: Sequence[set[tuple[Scope, int]]],
    *,
    threads: int = 1,
) -> None:
    """Fill in what is missing in the spectra: one walk over the tensors that have entries in these bins, none if nothing is missing.

    Args:
        base, specialists: The models that were measured.
        spectra: Theirs.
        bins: For each of them, (scope, coarse bin).
        threads: Threads.
    """
    missing = [chosen - spectrum.fine.keys() for spectrum, chosen in zip(spectra, bins, strict=True)]
    for scope in sorted({scope for chosen in missing for scope, _ in chosen}, key=lambda scope: scope or ()):
        fine = [_Fine(place for which, place in chosen if which == scope) for chosen in missing]
        readers = {name for row, each in enumerate(fine) for name in _holding(spectra[row], each.places, scope)}
        names = [name for name in spectra[0].names if name in readers]

        def work(chunk: Chunk, fine: list[_Fine] = fine) -> None:
            _collect_chunk(base, specialists, chunk, fine)

        for _ in ordered(chunks(base, names), work, threads):
            pass
        for spectrum, each in zip(spectra, fine, strict=True):
            spectrum.fine.update({(scope, place): counts for place, counts in each.counts().items()})


def refine_tensor(base: Checkpoint, specialists: Sequence[Checkpoint], name: str, bins: Sequence[set[int]]) -> list[dict[int, np.ndarray]]:
    """The values inside coarse bins of one tensor: for each specialist, bin -> counts, int64 (65536,)."""
    fine = [_Fine(chosen) for chosen in bins]
    if any(each.places for each in fine):
        for chunk in chunks(base, [name]):
            _collect_chunk(base, specialists, chunk, fine)
    return [each.counts() for each in fine]


def _measure_chunk(base: Checkpoint, specialists: Sequence[Checkpoint], chunk: Chunk, fine: Sequence[_Fine]) -> _Facts:
    counts = np.zeros((len(specialists), LANES, COARSE_BINS), np.uint32)
    nonzeros, squares, tops = [0] * len(specialists), [0.0] * len(specialists), [0] * len(specialists)
    caught = np.empty(BLOCK + LANES, np.uint32)
    # Tallied at the end, one task vector after the other: their tables do not fit into the caches together.
    kept: list[list[np.ndarray]] = [[] for _ in specialists]
    for row, vector, top in _vectors(base, specialists, chunk):
        found = count_magnitudes(vector, counts[row], fine[row].wanted, caught)
        kept[row].append(caught[:found].copy())
        nonzero, square = moved(vector)
        nonzeros[row] += nonzero
        squares[row] += square
        tops[row] = max(tops[row], top)
    for row, parts in enumerate(kept):
        if parts:
            fine[row].add(np.concatenate(parts))
    return _Facts(counts.sum(1, dtype=np.int64), nonzeros, squares, tops)


def _collect_chunk(base: Checkpoint, specialists: Sequence[Checkpoint], chunk: Chunk, fine: Sequence[_Fine]) -> None:
    caught = np.empty(BLOCK + LANES, np.uint32)
    needed = [row for row, each in enumerate(fine) if each.places]
    for place, vector, _ in _vectors(base, [specialists[row] for row in needed], chunk):
        fine[needed[place]].add(caught[: collect(vector, fine[needed[place]].wanted, caught)])


def _vectors(base: Checkpoint, specialists: Sequence[Checkpoint], chunk: Chunk) -> Iterator[tuple[int, np.ndarray, int]]:
    """(row, block of a task vector, bits of its largest magnitude); the array is overwritten by the next."""
    size = chunk.stop - chunk.start
    origins, vectors = np.empty(min(BLOCK, size), np.float32), np.empty(min(BLOCK, size), np.float32)
    load, loaders = base_loader(base, *chunk), [vector_loader(specialist, *chunk) for specialist in specialists]
    for place in range(0, size, BLOCK):
        origin, vector = origins[: size - place], vectors[: size - place]
        load(place, origin)
        for row, subtract in enumerate(loaders):
            top = subtract(place, origin, vector)
            yield row, vector, top


def _assemble(base: Checkpoint, names: Sequence[str], count: int, found: Iterator[tuple[Chunk, _Facts]]) -> list[Spectrum]:
    rows = {name: row for row, name in enumerate(names)}
    sizes = np.array([base.tensors[name].size for name in names], np.int64)
    nonzeros, squares = np.zeros((count, len(names)), np.int64), np.zeros((count, len(names)))
    tops = np.zeros((count, len(names)), np.uint32)
    coarse: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(count)]
    counts = np.zeros((count, COARSE_BINS), np.int64)
    for chunk, facts in found:
        row = rows[chunk.name]
        counts += facts.counts
        nonzeros[:, row] += facts.nonzeros
        squares[:, row] += facts.squares
        tops[:, row] = np.maximum(tops[:, row], np.array(facts.tops, np.uint32))
        if chunk.stop == sizes[row]:
            counts[:, 0] -= sizes[row] - nonzeros[:, row]  # zeros fall into the lowest bin, and are not counted
            for each, number in zip(coarse, counts, strict=True):
                places = np.flatnonzero(number)
                each.append((places.astype(np.uint16), number[places]))
            counts[:] = 0
    return [
        Spectrum(tuple(names), sizes, nonzeros[each], squares[each], tops[each].view(np.float32), coarse[each]) for each in range(count)
    ]


def _ranked(spectrum: Spectrum, densities: Iterable[float]) -> set[tuple[Scope, int]]:
    """The bins in which the thresholds of these densities lie, however ties are treated and fractions rounded."""
    wanted = {min(int(density * spectrum.total) + step, spectrum.total) for density in densities for step in (0, 1)}
    rules: tuple[Ties, ...] = ("all", "strict")
    places = {spectrum.bin(count, ties) for count in wanted for ties in rules}
    return {(None, place) for place in places if place is not None}


def _sample(
    base: Checkpoint, specialists: Sequence[Checkpoint], names: Sequence[str], wanted: Sequence[Sequence[float]]
) -> list[tuple[np.ndarray, int]]:
    """For each task vector, coarse counts of a sample, and its size."""
    counts = np.zeros((len(specialists), LANES, COARSE_BINS), np.uint32)
    sizes = [0] * len(specialists)
    caught, none = np.empty(SAMPLE + LANES, np.uint32), np.zeros(COARSE_BINS, np.uint8)
    if any(wanted):
        stride = max(STRIDE, sum(base.tensors[name].size for name in names) // SAMPLES)
        for name in names:
            size = base.tensors[name].size
            for start in range(0, size, stride):
                for row, vector, _ in _vectors(base, specialists, Chunk(name, start, min(start + SAMPLE, size))):
                    count_magnitudes(vector, counts[row], none, caught)
                    sizes[row] += vector.size
    return list(zip(counts.sum(1, dtype=np.int64), sizes, strict=True))


def _expected_bins(counts: np.ndarray, size: int, densities: Iterable[float]) -> set[int]:
    """The coarse bins in which the thresholds of these densities probably lie."""
    largest_first = np.cumsum(counts[::-1])
    places: set[int] = set()
    for density in densities:
        margin = MARGIN * float(np.sqrt(max(size * density * (1 - density), 1)))
        first, last = np.searchsorted(largest_first, [max(density * size - margin, 1), min(density * size + margin, size)])
        places.update(range(max(COARSE_BINS - 1 - int(last), 0), COARSE_BINS - int(first)) if size else ())
    # Many bins cost memory, and say that the sample tells little; then they are found by counting.
    return places if len(places) <= MOST_BINS else set()


def _holding(spectrum: Spectrum, places: Sequence[int], scope: Scope) -> Iterator[str]:
    """The tensors that have entries in one of these bins."""
    chosen = set(scope or spectrum.names)
    for name, (occupied, _) in zip(spectrum.names, spectrum.coarse, strict=True):
        if name in chosen and np.isin(occupied, places).any():
            yield name
