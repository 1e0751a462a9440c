"""Which samples lie together in which row of which optimizer step.

A row is a list of samples laid end to end, at most `max_length` tokens in all; the model keeps them apart by their
positions. Every step has the same number of rows, a multiple of what one forward pass of all processes takes, so
that no library has to cope with steps of different sizes. A row without samples is a *filler*: two tokens without loss.
"""

import heapq
import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

from mergebench.errors import MergebenchError

WINDOW = 4096  # samples among which rows of a fixed length are filled
Row = list[int]


def steps_of_samples(order: Sequence[int], lengths: Sequence[int], batch_size: int, max_length: int, unit: int) -> list[list[Row]]:
    """The rows of each step, if a step has exactly `batch_size` samples.

    The rows of a step are as many as the fullest step needs (best-fit decreasing), rounded up to a multiple of `unit`, and
    the step's tokens are spread evenly over them, so that processes wait little for one another.

    Args:
        order: which sample enters when; `batch_size` for each step.
        lengths: tokens of each sample, none above `max_length`.
        unit: rows that one forward pass of all processes takes.
    """
    _check(order, lengths, max_length)
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    packed = [best_fit(batch, lengths, max_length) for batch in batches]
    rows = unit * math.ceil(max(map(len, packed)) / unit)
    return [_by_load(even(full, lengths, max_length, rows), lengths) for full in packed]


def steps_of_packs(order: Sequence[int], lengths: Sequence[int], batch_size: int, max_length: int, unit: int) -> list[list[Row]]:
    """The rows of each step, if a step has `batch_size` rows that are as full as they can be.

    Samples are packed in windows of `WINDOW`, in `order`. The rows that the last step lacks are fillers, as are those that round
    `batch_size` up to a multiple of `unit`.
    """
    _check(order, lengths, max_length)
    packs = [row for i in range(0, len(order), WINDOW) for row in best_fit(order[i : i + WINDOW], lengths, max_length)]
    # Best-fit decreasing leaves the long samples first; every `stride`-th row makes a step a cross-section of its window.
    packs = [row for i in range(0, len(packs), WINDOW) for row in _dealt(packs[i : i + WINDOW], batch_size)]
    rows = unit * math.ceil(batch_size / unit)
    steps = [packs[i : i + batch_size] for i in range(0, len(packs), batch_size)]
    return [_by_load([*step, *([] for _ in range(rows - len(step)))], lengths) for step in steps]


def best_fit(samples: Sequence[int], lengths: Sequence[int], max_length: int) -> list[Row]:
    """Best-fit decreasing: the longest sample first, each into the fullest row that still has room for it."""
    rows: list[Row] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for sample in sorted(samples, key=lambda index: -lengths[index]):
        place = bisect_left(room, (int(lengths[sample]), -1))
        left, row = room.pop(place) if place < len(room) else (max_length, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(sample)
        insort(room, (left - int(lengths[sample]), row))
    return rows


def even(packed: list[Row], lengths: Sequence[int], max_length: int, count: int) -> list[Row]:
    """The samples of `packed` in `count` rows (no fewer than there are) of nearly equal numbers of tokens.

    The longest sample first, each into the row with the fewest tokens. Where that leaves a sample without room, which is rare,
    the rows are those of `packed`, and fillers.
    """
    rows: list[Row] = [[] for _ in range(count)]
    loads = [(0, row) for row in range(count)]
    for sample in sorted((sample for row in packed for sample in row), key=lambda index: -lengths[index]):
        load, row = loads[0]
        load += int(lengths[sample])
        if load > max_length:
            return [*packed, *([] for _ in range(count - len(packed)))]
        heapq.heapreplace(loads, (load, row))
        rows[row].append(sample)
    return rows


def _dealt(packs: list[Row], batch_size: int) -> Iterator[Row]:
    stride = max(1, len(packs) // batch_size)
    return (row for start in range(stride) for row in packs[start::stride])


def _by_load(rows: list[Row], lengths: Sequence[int]) -> list[Row]:
    """The fullest rows first, so that those of one forward pass are alike on all processes."""
    return sorted(rows, key=lambda row: -sum(int(lengths[index]) for index in row))


def _check(order: Sequence[int], lengths: Sequence[int], max_length: int) -> None:
    longest = max(order, key=lambda index: lengths[index])
    if lengths[longest] > max_length:
        raise MergebenchError(
            f"sample {longest} has {lengths[longest]} tokens, more than the {max_length} of a packed row; "
            "make the tokens again with this max_length."
        )
