"""Tables as CSV and as Markdown, and the text of their cells."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from mergebench.analysis.outputs import WARNING, table_title
from mergebench.analysis.tables import Table

MISSING = "missing"
_CSV_DECIMALS = 4
_DISPLAY_DECIMALS = 1


def to_csv(table: Table, warnings: Sequence[str] = ()) -> str:
    """Plain CSV with slugs as column names, four decimals or as many more as a column shows, and `missing` where there is no value yet.

    Warnings are a last column, `WARNING`, in every row: a line of comment would break readers, and a row that is copied keeps them.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    said = [" ".join(warnings)] if warnings else []
    writer.writerow([*table.frame.columns, *([WARNING] if said else [])])
    shown = [table.decimals.get(column, _CSV_DECIMALS) for column in table.frame.columns]
    decimals = [max(places, _CSV_DECIMALS) if places else 0 for places in shown]
    for row in table.frame.itertuples(index=False):
        writer.writerow([*(_cell(value, places) for value, places in zip(row, decimals, strict=True)), *said])
    return text.getvalue()


def to_markdown(table: Table, warnings: Sequence[str] = ()) -> str:
    """A Markdown section: title, warnings, aligned pipe table, then the rule of aggregation and what is missing."""
    frame = table.frame if table.display is None else table.display
    columns = [str(column) for column in frame.columns]
    names = sum(frame[column].map(lambda value: isinstance(value, str)).all() and i < table.names for i, column in enumerate(columns))
    lines = pipes(headings(table), cells(table), names)
    notes = [f"- {note}" for note in table.notes]
    said = [line for warning in warnings for line in (f"**Warning: {warning}**", "")]
    return "\n".join([f"# {table_title(table.name)}", "", *said, *lines, "", *notes, ""])


def headings(table: Table) -> list[str]:
    """What stands above the columns for readers."""
    frame = table.frame if table.display is None else table.display
    return [table.headings.get(column, column) for column in map(str, frame.columns)]


def cells(table: Table) -> list[list[str]]:
    """What readers see, row by row: figures with the decimals of their column, `missing` where there is no value yet."""
    frame = table.frame if table.display is None else table.display
    decimals = [table.decimals.get(column, _DISPLAY_DECIMALS) for column in map(str, frame.columns)]
    return [[_cell(value, places) for value, places in zip(row, decimals, strict=True)] for row in frame.itertuples(index=False)]


def pipes(header: Sequence[str], body: Sequence[Sequence[str]], left: int) -> list[str]:
    """Lines of a pipe table; the first `left` columns are aligned left, the others right."""
    escaped = [[_escape(cell) for cell in line] for line in (header, *body)]
    widths = [max(3, *(len(line[i]) for line in escaped)) for i in range(len(header))]
    aligned = [[_pad(cell, widths[i], left=i < left) for i, cell in enumerate(line)] for line in escaped]
    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return [f"| {' | '.join(line)} |" for line in [aligned[0], rule, *aligned[1:]]]


def _cell(value: Any, decimals: int) -> str:
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value):
        return MISSING
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _pad(text: str, width: int, *, left: bool) -> str:
    return text.ljust(width) if left else text.rjust(width)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
