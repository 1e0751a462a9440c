"""Tables and colours for a terminal. Needs nothing but the standard library."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO

WIDTH = 100
_LONGEST = 38
_GAP = "  "
COLOURS = {"green": "32", "red": "31"}


def coloured(stream: TextIO) -> bool:
    """Whether a stream shows colours: a terminal that is not dumb, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show_text(text: str) -> None:
    """Print; who stops reading (`| head`) gets no traceback."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit


def paint(text: str, colour: str) -> str:
    """Text in a colour of `COLOURS`."""
    return f"\033[{COLOURS[colour]}m{text}\033[0m"


def aligned(header: Sequence[str], body: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a table: header, rule, rows. The first `left` columns are aligned left, the others right; no line ends in blanks."""
    widths = [max(len(line[i]) for line in (header, *body)) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *body]
    return [
        _GAP.join(cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
        .rstrip() for line in lines
    ]  # fmt: skip


def wrapped(text: str, width: int = WIDTH) -> list[str]:
    """Lines of running text; a path that is longer than a line stays whole."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def fitted(header: Sequence[str], body: Sequence[Sequence[str]], left: int, width: int = WIDTH) -> list[str]:
    """Lines of a table that is no wider than `width`: long cells are wrapped, and columns that do not fit follow below.

    Every part repeats the `left` columns that name a row, which are aligned left, or the first alone where they are many. A single
    column may still be wider, if one of its words is.
    """
    columns = [[str(line[i]) for line in (header, *body)] for i in range(len(header))]
    wrapped = [[textwrap.wrap(cell, _LONGEST, break_long_words=False, break_on_hyphens=False) or [""] for cell in each] for each in columns]
    widths = [max(len(line) for cell in each for line in cell) for each in wrapped]
    names = left if 0 < sum(widths[:left]) <= width // 2 else 1
    parts: list[list[int]] = [[*range(names)]]
    for column in range(names, len(columns)):
        if len(parts[-1]) > names and sum(widths[i] + len(_GAP) for i in parts[-1]) + widths[column] > width:
            parts.append([*range(names)])
        parts[-1].append(column)
    found: list[str] = []
    for part in parts:
        rows = []
        for row in range(len(body) + 1):
            height = max(len(wrapped[i][row]) for i in part)
            rows.append([[*wrapped[i][row], *[""] * (height - len(wrapped[i][row]))] for i in part])
        lines = [
            _join([cell[k] for cell in row], [widths[i] for i in part], [i < left for i in part])
            for row in rows
            for k in range(len(row[0]))
        ]
        head = len(rows[0][0])
        rule = _GAP.join("-" * widths[i] for i in part)
        found += [*([""] if found else []), *lines[:head], rule, *lines[head:]]
    return found


def _join(cells: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> str:
    padded = (cell.ljust(width) if to_left else cell.rjust(width) for cell, width, to_left in zip(cells, widths, left, strict=True))
    return _GAP.join(padded).rstrip()
