"""A progress bar with the rest of the time, on the standard error stream."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self, TextIO

from mergebench.merging.estimate import duration

WIDTH = 30

# Seconds between two lines: of a bar in a terminal, and in a log.
TERMINAL, LOG = 0.1, 10.0


class Progress:
    """A bar that is redrawn in a terminal and printed now and then elsewhere; a context manager.

    Args:
        what: What is being done, in a word or two.
        stream: Where to draw.
    """

    def __init__(self, what: str, stream: TextIO | None = None) -> None:
        self._what, self._stream = what, stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._start = self._last = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` tensors are done."""
        now = time.monotonic()
        # A resumed merge begins with what is done already, which says nothing of its speed.
        self._first = self._first or (self._start, 0 if done == 1 else done)
        if done < total and now - self._last < (TERMINAL if self._terminal else LOG):
            return
        self._last = now
        start, before = self._first
        rest = (now - start) * (total - done) / (done - before) if done > before else None
        left = f", {duration(rest)} left" if rest and done < total else ""
        text = f"{self._what}: {done}/{total} tensors, {duration(now - self._start)}{left}"
        if self._terminal:
            filled = WIDTH * done // max(total, 1)
            self._stream.write(f"\r\x1b[K[{'#' * filled}{'.' * (WIDTH - filled)}] {text}")
            self._drawn = True
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._drawn:
            self._stream.write("\n")
            self._stream.flush()
