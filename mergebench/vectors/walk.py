"""Walk over the parameters of models in chunks, by several threads, with results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

from mergebench.checkpoints.digest import PIECE

# Entries per block: the float32 values of six models stay near a core (1.5 MB), and calls from Python cost little beside them. Of all
# results only the last digits of the sums in reports depend on it.
BLOCK = 1 << 16

# Entries per unit of work for a thread: a multiple of BLOCK, and the piece of a digest.
CHUNK = PIECE

Task = TypeVar("Task")
Result = TypeVar("Result")


class Chunk(NamedTuple):
    """Entries `start` to `stop` of one flattened tensor."""

    name: str
    start: int
    stop: int


class Sized(Protocol):
    """Models that know how many entries of a tensor there are to work on."""

    def size(self, name: str) -> int: ...


def chunks(models: Sized, names: Iterable[str]) -> Iterator[Chunk]:
    """The chunks of these tensors, in order; a tensor without entries has one, empty."""
    for name in names:
        size = models.size(name)
        for start in range(0, max(size, 1), CHUNK):
            yield Chunk(name, start, min(start + CHUNK, size))


def ordered(tasks: Iterable[Task], work: Callable[[Task], Result], threads: int) -> Iterator[Result]:
    """`work` of every task, by `threads` threads, in the order of the tasks; the first error ends it.

    At most two tasks per thread are under way or waiting to be taken, so that memory does not depend on their number.
    """
    if threads <= 1:
        yield from map(work, tasks)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for task in tasks:
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(work, task))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
