"""A table of the report as data: columns, and rows of cells that may lead somewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from markupsafe import Markup

ABSENT = ("missing", "n/a", "", "-", "—")
"""Cells without a value: they stand last, whichever way a table is sorted."""
LINE = 40
"""Characters of a cell that stay on one line."""
_NUMBER = r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?"
_AFTER = rf"(?:\s*(?:±\s*{_NUMBER}|\[{_NUMBER},\s*{_NUMBER}\]|\([^()]*\)|[†‡*%]|s|min|h|MiB|GiB|GB))*"
TIMES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9}
NUMERIC = re.compile(rf"[<>≈~]?\s*({_NUMBER})([KMB]?){_AFTER}")


@dataclass(frozen=True)
class Cell:
    """What a cell shows.

    Attributes:
        text: as it is read, sorted and filtered.
        href: where it leads: an anchor of the page; "" if nowhere.
        title: said in full where the text is shortened; "" if it is not.
        anchor: the name by which the page leads to its row; "" for none.
        drawing: a small picture in place of the text.
        code: whether the text is a path or a digest.
    """

    text: str
    href: str = ""
    title: str = ""
    anchor: str = ""
    drawing: Markup | None = None
    code: bool = False

    @property
    def absent(self) -> bool:
        """Whether there is no value."""
        return self.drawing is None and self.text.strip() in ABSENT


@dataclass(frozen=True)
class Column:
    """A heading and what stands below it: whether it is sorted by numbers, whether these are drawings, and whether it is text of more
    than a line."""

    heading: str
    numeric: bool = False
    drawn: bool = False
    long: bool = False

    @classmethod
    def of(cls, heading: str, cells: list[Cell], numeric: bool) -> Column:
        """The column of these cells."""
        drawn = any(cell.drawing is not None for cell in cells)
        return cls(heading, numeric, drawn, not numeric and any(len(cell.text) > LINE for cell in cells))


@dataclass(frozen=True)
class Grid:
    """A table; every row has a cell per column."""

    columns: list[Column]
    rows: list[list[Cell]] = field(default_factory=list)

    @classmethod
    def of(cls, headings: list[str], rows: list[list[Cell | str]]) -> Grid:
        """A table whose numeric columns are found from its cells."""
        cells = [[Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
        below = [[row[place] for row in cells] for place in range(len(headings))]
        return cls([Column.of(heading, column, is_numeric(column)) for heading, column in zip(headings, below, strict=True)], cells)


def is_numeric(cells: list[Cell]) -> bool:
    """Whether a column can be sorted by numbers: it has some, and nothing else but absent values."""
    there = [cell for cell in cells if not cell.absent]
    return bool(there) and all(cell.drawing is None and number(cell.text) is not None for cell in there)


def number(text: str) -> float | None:
    """The number with which a cell begins; None if it is not a number with its uncertainty, unit or remark."""
    found = NUMERIC.fullmatch(text.strip())
    return float(found[1].replace(",", "").replace("−", "-")) * TIMES[found[2]] if found else None
