"""The magnitude spectrum of a task vector: exact quantiles of |tau| without sorting, or even holding, the vector.

The bits of a non-negative float32 order like the number itself. Their upper half (15 bits besides the sign) picks one of 32,768 coarse
bins, counted per tensor. A quantile lies in one coarse bin; the counts of the 65,536 values inside that bin make it exact. `measure`
fills both in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self
from zipfile import BadZipFile

import numpy as np

from mergebench.errors import MergebenchError
from mergebench.kernels.histogram import COARSE_BINS, FINE_BINS

Ties = Literal["all", "strict", "exact"]

# Refined in advance: the densities of published grids.
DENSITIES = (0.01, 0.02, *(round(0.05 * step, 2) for step in range(1, 20)))

# Limits that no finite magnitude reaches, and that every magnitude but zero does.
NOTHING, NONZERO = 0x7F800000, 1

Scope = tuple[str, ...] | None


class Cut(NamedTuple):
    """One task vector's threshold: keep entries whose magnitude has at least the bits `limit`, and `spare` of those just below.

    Attributes:
        limit: Bits of a float32 magnitude.
        spare: How many entries of the bits limit - 1 are kept as well: the first in the order of sorted tensor names and positions.
        kept: Entries kept.
        total: Out of how many.
    """

    limit: int
    spare: int
    kept: int
    total: int

    @property
    def value(self) -> float:
        """The smallest magnitude that is kept, exact in float32; infinite if none is."""
        return float(np.array(self.limit - (self.spare > 0), np.uint32).view(np.float32))


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
    fine: dict[tuple[Scope, int], np.ndarray] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)

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

    def require_origin(self, domain: str, base: str, specialist: str, folder: Path) -> None:
        """Check that the spectrum is that of these models; one that does not say whose it is passes.

        Args:
            domain: Whose spectrum it is meant to be.
            base, specialist: The digests of the models' weights.
            folder: The specialist's, for the message.

        Raises:
            MergebenchError: It was measured on others.
        """
        if self.origin and (self.origin.get("base"), self.origin.get("specialist")) != (base, specialist):
            raise MergebenchError(f"The spectrum of {domain} was measured on other weights than {folder}; run the vectors stage again.")

    def tensor_norms(self) -> dict[str, float]:
        """Euclidean norm of each tensor's part."""
        return dict(zip(self.names, np.sqrt(self.squares).tolist(), strict=True))

    def scope(self, names: Iterable[str] | None) -> Scope:
        """The key of a choice of tensors: None for all of them.

        Raises:
            MergebenchError: A tensor was not measured.
        """
        chosen = None if names is None else set(names)
        if chosen is None or chosen == set(self.names):
            return None
        unknown = chosen - set(self.names)
        if unknown:
            raise MergebenchError(f"The spectrum has no tensor {min(unknown)!r}; measure it again from these models.")
        return tuple(name for name in self.names if name in chosen)

    def entries(self, scope: Scope = None) -> int:
        """Entries of some tensors."""
        return int(self.sizes[self._rows(scope)].sum())

    def cut(self, wanted: int, ties: Ties = "all", scope: Scope = None, fine: Mapping[int, np.ndarray] | None = None) -> Cut:
        """The threshold that keeps the `wanted` entries of largest magnitude.

        A zero is never kept: where fewer entries are nonzero than requested, all the nonzero ones are. Entries that equal the threshold
        are all kept ("all": at least the requested number), all dropped ("strict": at most that number), or kept in canonical order
        as far as the requested number goes ("exact").

        Args:
            wanted: How many entries to keep.
            ties: What to do with equal ones.
            scope: Count these tensors alone, see `scope`.
            fine: Coarse bin -> counts of its values, instead of the spectrum's own.

        Raises:
            MergebenchError: The coarse bin was not refined, see `bin` and `measure.refine`.
        """
        total, rank = self.entries(scope), self._rank(wanted, ties, scope)
        if rank is None:
            return Cut(NOTHING, 0, 0, total) if wanted == 0 else Cut(NONZERO, 0, self._nonzero(scope), total)
        place, above = self._bin_of(rank, scope)
        counts = fine.get(place) if fine is not None else self.fine.get((scope, place))
        if counts is None:
            raise MergebenchError(f"The spectrum was not refined for the {wanted} largest entries; measure it with this density.")
        at_least = above + np.cumsum(counts[::-1])
        step = int(np.searchsorted(at_least, rank))
        bits, reached = place << 16 | (FINE_BINS - 1 - step), int(at_least[step])
        over = reached - int(counts[FINE_BINS - 1 - step])
        if ties == "strict":
            return Cut(bits + 1, 0, over, total)
        if ties == "all" or reached == wanted:
            return Cut(bits, 0, reached, total)
        return Cut(bits + 1, wanted - over, wanted, total)

    def bin(self, wanted: int, ties: Ties = "all", scope: Scope = None) -> int | None:
        """The coarse bin that `cut` looks into; None where it needs none."""
        rank = self._rank(wanted, ties, scope)
        return None if rank is None else self._bin_of(rank, scope)[0]

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

    def _rows(self, scope: Scope) -> np.ndarray:
        if scope is None:
            return np.arange(len(self.names))
        rows = {name: row for row, name in enumerate(self.names)}
        return np.array([rows[name] for name in scope], np.int64)

    def _nonzero(self, scope: Scope) -> int:
        return int(self.nonzeros[self._rows(scope)].sum())

    def _rank(self, wanted: int, ties: Ties, scope: Scope) -> int | None:
        """The rank, from the largest, of the entry whose magnitude is the threshold; None where no entry decides."""
        if wanted == 0 or wanted >= self._nonzero(scope):
            return None
        return wanted + 1 if ties == "strict" else wanted

    def _bin_of(self, rank: int, scope: Scope) -> tuple[int, int]:
        """The coarse bin of the entry with this rank, and how many entries lie in higher bins."""
        counts = np.zeros(COARSE_BINS, np.int64)
        for row in self._rows(scope):
            places, number = self.coarse[row]
            counts[places] += number
        largest_first = np.cumsum(counts[::-1])
        step = int(np.searchsorted(largest_first, rank))
        place = COARSE_BINS - 1 - step
        return place, int(largest_first[step] - counts[place])


def _join(arrays: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(arrays).astype(dtype) if arrays else np.empty(0, dtype)


def _split(array: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    return np.split(array, np.cumsum(lengths)[:-1]) if len(lengths) else []
