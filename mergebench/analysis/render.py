"""Tables as CSV and as Markdown."""

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
_MARKDOWN_DECIMALS = 1


def to_csv(table: Table, warnings: Sequence[str] = ()) -> str:
    """Plain CSV with slugs as column names, four decimals, and `missing` where there is no value yet.

    Warnings are a last column, `WARNING`, in every row: a line of comment would break readers, and a row that is copied keeps them.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    said = [" ".join(warnings)] if warnings else []
    writer.writerow([*table.frame.columns, *([WARNING] if said else [])])
    decimals = [0 if table.decimals.get(column) == 0 else _CSV_DECIMALS for column in table.frame.columns]
    for row in table.frame.itertuples(index=False):
        writer.writerow([*(_cell(value, places) for value, places in zip(row, decimals, strict=True)), *said])
    return text.getvalue()


def to_markdown(table: Table, warnings: Sequence[str] = ()) -> str:
    """A Markdown section: title, warnings, aligned pipe table, then the rule of aggregation and what is missing."""
    frame = table.frame if table.display is None else table.display
    columns = [str(column) for column in frame.columns]
    body = [
        [_escape(_cell(value, table.decimals.get(column, _MARKDOWN_DECIMALS))) for column, value in zip(columns, row, strict=True)]
        for row in frame.itertuples(index=False)
    ]
    header = [_escape(table.headings.get(column, column)) for column in columns]
    widths = [max(3, *(len(line[i]) for line in [header, *body])) for i in range(len(columns))]
    names = sum(frame[column].map(lambda value: isinstance(value, str)).all() and i < table.names for i, column in enumerate(columns))
    aligned = [[_pad(cell, widths[i], left=i < names) for i, cell in enumerate(line)] for line in [header, *body]]
    rule = ["-" * width if i < names else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    lines = [f"| {' | '.join(line)} |" for line in [aligned[0], rule, *aligned[1:]]]
    notes = [f"- {note}" for note in table.notes]
    said = [line for warning in warnings for line in (f"**Warning: {warning}**", "")]
    return "\n".join([f"# {table_title(table.name)}", "", *said, *lines, "", *notes, ""])


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
