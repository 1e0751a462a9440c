"""An index of the n-grams of all benchmarks, and the search for them in training rows.

Words are numbered; a word that no benchmark has gets 0, and no n-gram with it can match. N-grams are found by a polynomial
hash of 64 bits and then compared word by word, so that what is reported is exact.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mergebench.data.decontamination.words import words

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplying by it loses nothing
_FILTER_BITS = 24
_PAIRS = 1 << 18  # pairs of n-grams that are compared at once


@dataclass(frozen=True)
class Grams:
    """All n-grams of one length: sorted hashes, and where each stands."""

    length: int
    hashes: np.ndarray  # uint64
    starts: np.ndarray  # int64, into `Index.text`
    segments: np.ndarray  # int32
    filter: np.ndarray  # bool, by the upper bits of a hash: False where none is


@dataclass(frozen=True)
class Match:
    """An n-gram of a training row (by its number in the batch) that stands in a segment of a benchmark."""

    row: int
    segment: int


class Builder:
    """Collects the items of benchmarks; `Builder.index` makes the index.

    Args:
        ngram: words that a training row and an item must have in common, in a row.
        shortest: an item's text of fewer than `ngram` words is looked for as a whole, if it has at least so many.
    """

    def __init__(self, ngram: int, shortest: int) -> None:
        self.ngram, self.shortest = ngram, min(shortest, ngram)
        self.vocabulary: dict[str, int] = {}
        self._known: dict[tuple[str, bytes], int] = {}
        self._ids: list[np.ndarray] = []
        self.items_of: list[list[int]] = []  # segment -> numbers of the items that have it

    def add(self, benchmark: str, item: int, texts: Iterable[str]) -> bool:
        """Add an item of a benchmark; returns whether one of its texts is long enough to be looked for."""
        searchable = False
        for text in texts:
            found = words(text)
            if len(found) < self.shortest:
                continue
            searchable = True
            ids = np.fromiter((self.vocabulary.setdefault(word, len(self.vocabulary) + 1) for word in found), dtype=np.int32)
            segment = self._known.setdefault((benchmark, ids.tobytes()), len(self._ids))
            if segment == len(self._ids):
                self._ids.append(ids)
                self.items_of.append([])
            if item not in self.items_of[segment][-1:]:
                self.items_of[segment].append(item)
        return searchable

    def index(self) -> "Index":
        """The index of everything added."""
        text = np.concatenate([np.empty(0, dtype=np.int32), *self._ids])
        sizes = np.array([len(ids) for ids in self._ids], dtype=np.int64)
        ends = np.cumsum(sizes)
        segment_of = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        last = ends[segment_of] if len(sizes) else np.empty(0, dtype=np.int64)
        size_of = sizes[segment_of] if len(sizes) else np.empty(0, dtype=np.int64)
        lengths = sorted({min(int(size), self.ngram) for size in sizes})
        table = _table(len(self.vocabulary) + 1)
        grams = []
        for length, hashes in _rolling(table[text], lengths):
            starts = np.flatnonzero(np.arange(len(hashes)) + length <= last[: len(hashes)])
            if length < self.ngram:  # only texts of exactly this length, as a whole
                starts = starts[size_of[starts] == length]
            order = np.argsort(hashes[starts], kind="stable")
            starts, chosen = starts[order], hashes[starts][order]
            present = np.zeros(1 << _FILTER_BITS, dtype=bool)
            present[chosen >> np.uint64(64 - _FILTER_BITS)] = True
            grams.append(Grams(length, chosen, starts, segment_of[starts], present))
        return Index(self.vocabulary, table, text, grams)


@dataclass(frozen=True)
class Index:
    """N-grams by length, ready to be looked for."""

    vocabulary: dict[str, int]
    table: np.ndarray  # uint64, the hash of each word's number
    text: np.ndarray  # int32, all segments' words end to end
    grams: list[Grams]

    def search(self, rows: Sequence[Sequence[str]]) -> list[Match]:
        """Matches in the texts of a batch of rows, each pair of a row and a segment once, in order."""
        get = self.vocabulary.get
        pieces: list[list[int]] = []
        owners: list[int] = []
        for number, texts in enumerate(rows):
            for text in texts:
                pieces.append([get(word, 0) for word in words(text)])
                owners.append(number)
        sizes = np.array([len(piece) for piece in pieces], dtype=np.int64)
        ids = np.fromiter((i for piece in pieces for i in piece), dtype=np.int32, count=int(sizes.sum()))
        # How many words there are from each one to the next unknown one, or to the end of its text.
        place = np.arange(len(ids))
        unknown = np.append(np.flatnonzero(ids == 0), len(ids))
        reach = np.minimum(np.repeat(np.cumsum(sizes), sizes), unknown[np.searchsorted(unknown, place)]) - place
        found: set[tuple[int, int]] = set()
        owner_of = np.repeat(np.array(owners, dtype=np.int64), sizes)
        by_length = {grams.length: grams for grams in self.grams}
        for length, hashes in _rolling(self.table[ids], sorted(by_length)):
            grams = by_length[length]
            places = np.flatnonzero(reach[: len(hashes)] >= length)
            places = places[grams.filter[hashes[places] >> np.uint64(64 - _FILTER_BITS)]]
            found |= self._verified(grams, ids, places, hashes[places], owner_of)
        return [Match(row, segment) for row, segment in sorted(found)]

    def _verified(
        self, grams: Grams, ids: np.ndarray, places: np.ndarray, hashes: np.ndarray, owner_of: np.ndarray
    ) -> set[tuple[int, int]]:
        """(row, segment) of the places whose n-gram is, word by word, one of the index."""
        low = np.searchsorted(grams.hashes, hashes, side="left")
        high = np.searchsorted(grams.hashes, hashes, side="right")
        counts = high - low
        found: set[tuple[int, int]] = set()
        steps = np.arange(grams.length)
        total = np.cumsum(counts)
        start = 0
        while start < len(places):  # as many places at once as make about `_PAIRS` pairs
            done = total[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(total, done + _PAIRS, side="right")))
            some = slice(start, stop)
            start = stop
            place = np.repeat(places[some], counts[some])
            if not len(place):
                continue
            entry = np.concatenate([np.arange(a, b) for a, b in zip(low[some], high[some], strict=True) if b > a])
            same = (ids[place[:, None] + steps] == self.text[grams.starts[entry][:, None] + steps]).all(axis=1)
            found.update(zip(owner_of[place[same]].tolist(), grams.segments[entry[same]].tolist(), strict=True))
        return found


def _table(size: int) -> np.ndarray:
    """A hash for each word's number: the splitmix64 sequence, whose values look random and are the same everywhere."""
    z = (np.arange(size, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _rolling(hashed: np.ndarray, lengths: Sequence[int]) -> Iterable[tuple[int, np.ndarray]]:
    """Hashes of all n-grams of the given lengths (ascending): entry i is that of the words from i on."""
    current = hashed
    for length in range(1, max(lengths, default=0) + 1):
        if length > 1:
            current = current[:-1] * _BASE + hashed[length - 1 :] if len(current) else current
        if length in lengths:
            yield length, current
