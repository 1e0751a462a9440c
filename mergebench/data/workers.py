"""Processes that share the pieces of a file and end with the process that started them."""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from mergebench.errors import MergebenchError

PR_SET_PDEATHSIG = 1  # prctl(2)
Piece = TypeVar("Piece")
Result = TypeVar("Result")


def shared(work: Callable[[Piece], Result], pieces: Sequence[Piece], processes: int) -> Iterator[Result]:
    """``map(work, pieces)``, in order, over so many processes (one: this one).

    They are forked, so that what `work` finds in this process is there already and is not copied; nothing here may have started
    a thread before.

    Raises:
        MergebenchError: a process was killed.
    """
    count = min(processes, len(pieces))
    if count <= 1:
        yield from map(work, pieces)
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_end_with, initargs=(os.getpid(),)) as pool:
        try:
            yield from pool.map(work, pieces)
        except BrokenProcessPool:
            raise MergebenchError("a process that shared the work was killed, most likely for want of memory; give the job more.") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _end_with(parent: int) -> None:
    """A process that outlived its parent would hold the job's lease, and the next attempt would wait for it forever."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
