"""The magnitude spectrum of a task vector: exact quantiles of |tau| without sorting, or even holding, the vector.

The bits of a non-negative float32 order like the number itself. Their upper half (15 bits besides the sign) picks one of
32,768 coarse bins, counted per tensor. A quantile lies in one coarse bin; a second walk over the vector counts the
65,536 values inside that bin, which makes the threshold exact. Usual densities are refined when the spectrum
is measured, others when they are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self
from zipfile import BadZipFile

import numpy as np

from mergebench.errors import MergebenchError
from mergebench.vectors.vector import Stream

Ties = Literal["all", "strict"]

COARSE_BINS = 1 << 15
FINE_BINS = 1 << 16
CHUNK = 1 << 22

# Refined in advance: the densities of published grids.
DENSITIES = (0.01, 0.02, *(round(0.05 * step, 2) for step in range(1, 20)))


class Threshold(NamedTuple):
    """An exact magnitude threshold.

    Attributes:
        value: The threshold, exact in float32.
        strict: Whether to keep |tau| > value (True) or |tau| >= value (False).
        kept: How many entries that keeps.
        total: Out of how many.
    """

    value: float
    strict: bool
    kept: int
    total: int


@dataclass
class Spectrum:
    """Magnitudes of one task vector.

    Attributes:
        names: Tensor names, in the order of measurement.
        sizes, nonzeros: Entries and nonzero entries per tensor, int64 (tensors,).
        squares: Sum of squares per tensor, float64 (tensors,).
        maxima: Largest magnitude per tensor, float32 (tensors,).
        coarse: Per tensor, the occupied coarse bins (uint16) and their counts (int64); zeros are not counted.
        fine: (names of the tensors or None for all, coarse bin) -> counts of the values inside the bin, int64 (65536,).
        origin: Facts kept with the spectrum, such as the digests of the two models.
    """

    names: tuple[str, ...]
    sizes: np.ndarray
    nonzeros: np.ndarray
    squares: np.ndarray
    maxima: np.ndarray
    coarse: list[tuple[np.ndarray, np.ndarray]]
    fine: dict[tuple[tuple[str, ...] | None, int], np.ndarray] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)

    @classmethod
    def measure(cls, stream: Stream, *, densities: Iterable[float] = DENSITIES, origin: Mapping[str, str] | None = None) -> Self:
        """Measure a task vector in two walks over it; memory is one tensor and the histograms.

        Args:
            stream: Walks over (name, float32 array), the same each time.
            densities: Densities whose thresholds need no further walk.
            origin: Facts to keep with the spectrum.
        """
        names: list[str] = []
        facts: list[tuple[int, int, float, float]] = []
        coarse: list[tuple[np.ndarray, np.ndarray]] = []
        for name, array in stream():
            counts, square, largest = np.zeros(COARSE_BINS, np.int64), 0.0, 0.0
            for chunk, bits in _chunks(array):
                counts += np.bincount(bits[bits > 0] >> 16, minlength=COARSE_BINS)
                square += float(np.square(chunk, dtype=np.float64).sum())
                largest = max(largest, float(np.abs(chunk).max()))
            names.append(name)
            facts.append((array.size, int(counts.sum()), square, largest))
            bins = np.flatnonzero(counts)
            coarse.append((bins.astype(np.uint16), counts[bins]))
        columns = list(zip(*facts, strict=True)) or [(), (), (), ()]
        spectrum = cls(
            names=tuple(names),
            sizes=np.array(columns[0], np.int64),
            nonzeros=np.array(columns[1], np.int64),
            squares=np.array(columns[2], np.float64),
            maxima=np.array(columns[3], np.float32),
            coarse=coarse,
            origin=dict(origin or {}),
        )
        chosen = list(densities)
        ranks = {rank for density in chosen for ties in ("all", "strict") for rank in spectrum._ranks(density, ties, None)}
        spectrum._refine({spectrum._bin_of(rank, None)[0] for rank in ranks}, None, stream)
        return spectrum

    @property
    def total(self) -> int:
        """Entries of the vector."""
        return int(self.sizes.sum())

    @property
    def norm(self) -> float:
        """Euclidean norm of the vector."""
        return float(np.sqrt(self.squares.sum()))

    @property
    def zero_fraction(self) -> float:
        """Fraction of the entries that are exactly zero."""
        return 1.0 - int(self.nonzeros.sum()) / max(self.total, 1)

    def tensor_norms(self) -> dict[str, float]:
        """Euclidean norm of each tensor's part."""
        return dict(zip(self.names, np.sqrt(self.squares).tolist(), strict=True))

    def threshold(
        self, density: float, ties: Ties = "all", *, names: Iterable[str] | None = None, stream: Stream | None = None
    ) -> Threshold:
        """The threshold that keeps the `density` * total entries of largest magnitude.

        A zero is never kept: where fewer entries are nonzero than requested, all the nonzero ones are. Equal
        magnitudes at the threshold are kept together ("all": at least the requested number) or dropped together
        ("strict": at most the requested number). Without ties both keep exactly round(density * total).

        Args:
            density: Fraction to keep, in [0, 1].
            ties: "all" or "strict".
            names: Count only these tensors; None means all.
            stream: A walk over the task vector (at least over `names`), for a density not refined in advance.

        Raises:
            MergebenchError: Another walk is needed and there is no `stream`.
        """
        if not 0 <= density <= 1:
            raise MergebenchError(f"A density of {density:g} was asked for; it is a fraction between 0 and 1.")
        scope = self._scope(names)
        total, nonzero = (int(column[self._rows(scope)].sum()) for column in (self.sizes, self.nonzeros))
        wanted = min(round(density * total), nonzero)
        if wanted == 0:
            return Threshold(float("inf"), False, 0, total)
        if wanted == nonzero:
            return Threshold(0.0, True, nonzero, total)
        (rank,) = self._ranks(density, ties, scope)
        place, above = self._bin_of(rank, scope)
        if (scope, place) not in self.fine:
            if stream is None:
                raise MergebenchError(
                    f"The spectrum was not refined for density {density:g}; measure it with this density or give the vector."
                )
            self._refine({place}, scope, stream)
        counts = self.fine[scope, place]
        largest_first = above + np.cumsum(counts[::-1])
        step = int(np.searchsorted(largest_first, rank))
        value = np.array([place << 16 | (FINE_BINS - 1 - step)], np.uint32).view(np.float32)[0]
        at_least = int(largest_first[step])
        kept = at_least if ties == "all" else at_least - int(counts[FINE_BINS - 1 - step])
        return Threshold(float(value), ties == "strict", kept, total)

    def save(self, path: Path) -> None:
        """Write the spectrum to an npz file; the same spectrum gives the same bytes."""
        bins = sorted(place for scope, place in self.fine if scope is None)
        fine = [(np.flatnonzero(self.fine[None, place]), self.fine[None, place]) for place in bins]
        arrays: dict[str, Any] = {
            "names": np.array(self.names, np.str_),
            "sizes": self.sizes,
            "nonzeros": self.nonzeros,
            "squares": self.squares,
            "maxima": self.maxima,
            "coarse_lengths": np.array([len(places) for places, _ in self.coarse], np.int64),
            "coarse_bins": _join([places for places, _ in self.coarse], np.uint16),
            "coarse_counts": _join([counts for _, counts in self.coarse], np.int64),
            "fine_bins": np.array(bins, np.uint16),
            "fine_lengths": np.array([len(places) for places, _ in fine], np.int64),
            "fine_places": _join([places for places, _ in fine], np.uint16),
            "fine_counts": _join([counts[places] for places, counts in fine], np.int64),
            "origin": np.array(json.dumps(self.origin, sort_keys=True), np.str_),
        }
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            MergebenchError: The file is missing or is not a spectrum.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            coarse = zip(
                _split(arrays["coarse_bins"], arrays["coarse_lengths"]),
                _split(arrays["coarse_counts"], arrays["coarse_lengths"]),
                strict=True,
            )
            spectrum = cls(
                names=tuple(arrays["names"].tolist()),
                sizes=arrays["sizes"],
                nonzeros=arrays["nonzeros"],
                squares=arrays["squares"],
                maxima=arrays["maxima"],
                coarse=list(coarse),
                origin=json.loads(str(arrays["origin"])),
            )
            places = _split(arrays["fine_places"], arrays["fine_lengths"])
            counts = _split(arrays["fine_counts"], arrays["fine_lengths"])
            for place, inside, number in zip(arrays["fine_bins"].tolist(), places, counts, strict=True):
                spectrum.fine[None, place] = np.zeros(FINE_BINS, np.int64)
                spectrum.fine[None, place][inside] = number
        except (OSError, KeyError, ValueError, EOFError, BadZipFile) as error:
            raise MergebenchError(f"{path} is not a readable spectrum ({error}); remove it and measure it again.") from error
        return spectrum

    def _scope(self, names: Iterable[str] | None) -> tuple[str, ...] | None:
        chosen = None if names is None else set(names)
        if chosen is None or chosen == set(self.names):
            return None
        unknown = chosen - set(self.names)
        if unknown:
            raise MergebenchError(f"The spectrum has no tensor {min(unknown)!r}; measure it again from these models.")
        return tuple(name for name in self.names if name in chosen)

    def _rows(self, scope: tuple[str, ...] | None) -> np.ndarray:
        chosen = None if scope is None else set(scope)
        return np.array([row for row, name in enumerate(self.names) if chosen is None or name in chosen], np.int64)

    def _ranks(self, density: float, ties: str, scope: tuple[str, ...] | None) -> tuple[int, ...]:
        """The rank, from the largest, of the entry whose magnitude is the threshold; none where no entry decides."""
        rows = self._rows(scope)
        wanted = round(density * int(self.sizes[rows].sum()))
        if wanted == 0 or wanted >= int(self.nonzeros[rows].sum()):
            return ()
        return (wanted if ties == "all" else wanted + 1,)

    def _bin_of(self, rank: int, scope: tuple[str, ...] | None) -> tuple[int, int]:
        """The coarse bin of the entry with this rank, and how many entries lie in higher bins."""
        counts = np.zeros(COARSE_BINS, np.int64)
        for row in self._rows(scope):
            places, number = self.coarse[row]
            counts[places] += number
        largest_first = np.cumsum(counts[::-1])
        step = int(np.searchsorted(largest_first, rank))
        place = COARSE_BINS - 1 - step
        return place, int(largest_first[step] - counts[place])

    def _refine(self, places: set[int], scope: tuple[str, ...] | None, stream: Stream) -> None:
        """Count the values inside these coarse bins, in one walk over the vector."""
        if not places:
            return
        counts = {place: np.zeros(FINE_BINS, np.int64) for place in places}
        wanted = np.zeros(COARSE_BINS, bool)
        wanted[list(places)] = True
        included = set(self.names if scope is None else scope)
        for name, array in stream():
            if name not in included:
                continue
            for _, bits in _chunks(array):
                inside = bits[wanted[bits >> 16]]
                for place in np.unique(inside >> 16).tolist():
                    counts[place] += np.bincount(inside[inside >> 16 == place] & (FINE_BINS - 1), minlength=FINE_BINS)
        self.fine.update({(scope, place): number for place, number in counts.items()})


def _chunks(array: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pieces of a float32 array, and the bits of their magnitudes as int64."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        chunk = flat[start : start + CHUNK]
        yield chunk, (chunk.view(np.uint32) & 0x7FFFFFFF).astype(np.int64)


def _join(arrays: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(arrays).astype(dtype) if arrays else np.empty(0, dtype)


def _split(array: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    return np.split(array, np.cumsum(lengths)[:-1]) if len(lengths) else []
