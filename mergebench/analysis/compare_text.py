"""A comparison in words: for a terminal, as Markdown, CSV and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd

from mergebench.analysis.compare import (
    BENCHMARK,
    BETTER,
    COLUMNS,
    DOMAIN,
    METHOD,
    MISSING,
    NO_INTERVAL,
    SAME,
    SCORE,
    UNDECIDED,
    WORSE,
    Comparison,
)
from mergebench.analysis.comparisons import ALPHA
from mergebench.analysis.labels import model_title, signed, title
from mergebench.analysis.remarks import PERFORMANCE, RETENTION
from mergebench.analysis.render import pipes, to_csv
from mergebench.analysis.tables import NOT_APPLICABLE, Table
from mergebench.analysis.terminal import WIDTH, aligned, paint, wrapped
from mergebench.analysis.uncertainty import ALL_BASES, LEVEL

VERDICTS = (BETTER, WORSE, UNDECIDED, SAME, NO_INTERVAL, MISSING)
HEADINGS = {
    PERFORMANCE: "Normalised performance (% of the specialists)",
    RETENTION: "Retention (% of the base on the forgetting benchmarks)",
    SCORE: "Benchmarks (points)",
}
_HEADER = ("A", "B", "B - A", f"{100 * LEVEL:.0f} % interval", "p", "")
_ITEMS = ("items", "+", "-")
_COLOURS = {BETTER: "green", WORSE: "red"}
_LONGEST = 23
Section = tuple[str, list[str], list[list[str]]]
"""Heading, header, rows."""


def to_terminal(found: Comparison, *, everything: bool = False, colour: bool = False) -> str:
    """Text of at most `terminal.WIDTH` columns (unless a name is very long).

    Args:
        found: what was compared.
        everything: list every domain and benchmark, not only those of which something can be said.
        colour: paint verdicts.
    """
    lines = [*(part for line in _head(found) for part in wrapped(line, WIDTH)), ""]
    for heading, header, rows in _sections(found, everything):
        lines += [*([heading, ""] if heading else []), *_painted(aligned(header, rows), rows, colour), ""]
    lines += [line for note in _closing(found, everything) for line in wrapped(note, WIDTH)]
    return "\n".join(lines)


def to_markdown(found: Comparison, *, everything: bool = False) -> str:
    """A Markdown page with the same content."""
    lines = ["# Comparison", "", *(f"- {line}" for line in _head(found)), ""]
    for heading, header, rows in _sections(found, everything):
        lines += [*([f"## {heading}", ""] if heading else []), *pipes([cell or "verdict" for cell in header], rows, 1), ""]
    return "\n".join([*lines, *(f"- {note}" for note in _closing(found, everything))])


def to_table(found: Comparison) -> str:
    """Every difference as CSV: `missing` where a score is, `n/a` where there is no interval or a column says nothing."""
    frame = found.frame.astype(object)
    counts = ["items", "items_a", "items_b", "gained", "lost"]
    for column in ("low", "high", "p", "p_holm", *counts):
        frame[column] = frame[column].where(found.frame[column].notna(), NOT_APPLICABLE)
    decimals = dict.fromkeys(counts, 0)
    return to_csv(Table("compare", frame, [], decimals=decimals), found.warnings)


def to_json(found: Comparison) -> str:
    """Everything as JSON; numbers that are not known are null."""
    rows = [{name: _plain(value) for name, value in zip(COLUMNS, row, strict=True)} for row in found.frame.itertuples(index=False)]
    record = {
        "a": {"run": str(found.a.folder), "model": found.a.model},
        "b": {"run": str(found.b.folder), "model": found.b.model},
        "normalised_by": "a" if found.options.by_first else "each run's own specialists and base",
        "level": LEVEL,
        "bases": list(found.bases),
        "summary": {level: {verdict: int(n) for verdict, n in counts.items()} for level, counts in _counts(found).items()},
        "differences": rows,
        "warnings": found.warnings,
        "notes": found.notes,
        "only_a": found.only_a,
        "only_b": found.only_b,
    }
    return json.dumps(record, indent=1, allow_nan=False)


def _head(found: Comparison) -> list[str]:
    by = (
        "both normalised by the specialists and bases of A" if found.options.by_first else "each normalised by its own specialists and base"
    )
    return [
        *(f"WARNING, {warning}" for warning in found.warnings),
        f"A: {_named(found.a.folder, found.a.model)}",
        f"B: {_named(found.b.folder, found.b.model)}",
        f"B - A in percentage points, {by}.",
    ]


def _named(folder: object, model: str | None) -> str:
    return str(folder) if model is None else f"{model_title(model)} of {folder}"


def _sections(found: Comparison, everything: bool) -> Iterator[Section]:
    """The tables to print, each with a header whose first cell is the base; none of runs that do not differ."""
    frame = found.frame
    if _identical(found) and not everything:
        return
    for measure in (PERFORMANCE, RETENTION):
        mine = frame[(frame["measure"] == measure) & (found.one_pair | everything | (frame["level"] == METHOD))]
        yield from _by_base(HEADINGS[measure], mine, _HEADER, lambda rows: [[_subject(found, row), *_cells(row)] for row in rows])
    single = frame[frame["level"] == BENCHMARK]
    shown = single if everything else single[single["verdict"].isin([BETTER, WORSE])]
    heading = HEADINGS[SCORE] + ("" if everything else ": where a difference is decided")
    yield from _by_base(heading, shown, (*_ITEMS, *_HEADER), lambda rows: _benchmarks(found, rows))


def _by_base(heading: str, frame: pd.DataFrame, header: Sequence[str], body: Callable[[list[Any]], list[list[str]]]) -> Iterator[Section]:
    for base, rows in frame.groupby("base", sort=False):
        cells = [[_cut(first), *others] for first, *others in body(list(rows.itertuples()))]
        yield heading, [_cut(str(base)), *header], cells
        heading = ""


def _subject(found: Comparison, row: Any) -> str:
    """What a row of means is about: its model, its domain, or, of two models, the domain alone."""
    if found.one_pair:
        return title(row.domain)
    return f"  {title(row.domain)}" if row.level == DOMAIN else model_title(row.model_a)


def _benchmarks(found: Comparison, rows: list[Any]) -> list[list[str]]:
    """Rows of benchmarks below a line with their model, which two models do not need."""
    lines, model = [], None
    for row in rows:
        if not found.one_pair and row.model_a != model:
            model = row.model_a
            lines.append([model_title(model), *[""] * (len(_ITEMS) + len(_HEADER))])
        counts = ["" if math.isnan(value) else f"{value:.0f}" for value in (row.items, row.gained, row.lost)]
        lines.append([row.benchmark if found.one_pair else f"  {row.benchmark}", *counts, *_cells(row)])
    return lines


def _cells(row: Any) -> list[str]:
    interval = f"[{signed(row.low, 1)}, {signed(row.high, 1)}]" if not math.isnan(row.low) else ""
    p = "" if math.isnan(row.p_holm) else "<.001" if row.p_holm < 0.001 else f"{row.p_holm:.3f}"
    change = "" if math.isnan(row.difference) else signed(row.difference, 1)
    values = (MISSING if math.isnan(value) else f"{value:.1f}" for value in (row.a, row.b))
    return [*values, change, interval, p, "same" if row.verdict == SAME else row.verdict]


def _closing(found: Comparison, everything: bool) -> list[str]:
    """The summary, what the numbers are, and what the reader must know."""
    counts = _counts(found)
    kinds = {METHOD: "means over all domains", DOMAIN: "domains", BENCHMARK: "benchmarks"}
    said = []
    for level, each in counts.items():
        total = sum(each.values())
        words = ", ".join(f"{n:,} {verdict}" for verdict, n in each.items() if n)
        said.append(f"{total:,} {kinds[level]}: {words}.")
    if _identical(found):
        said.insert(0, "No difference: every score is the same, item by item.")
    for verdict in (BETTER, WORSE):
        rows = found.frame[(found.frame["level"] == METHOD) & (found.frame["verdict"] == verdict)]
        if len(rows):
            listed = [
                f"{model_title(row.model_b)} {'over all bases' if row.base == ALL_BASES else f'on {row.base}'} ({row.measure} "
                f"{signed(row.difference, 1)})"
                for row in rows.itertuples()
            ]
            said.append(f"{verdict.capitalize()} in B: {'; '.join(listed)}.")
    said.append(
        f"Intervals: {100 * LEVEL:.0f} %, of paired resamples of the common items, not corrected. p: of the paired difference, after "
        f"Holm's correction over all differences of the level. Better and worse: p below {ALPHA:.2g}; same: no "
        "resample differs."
    )
    if (found.frame["level"] == BENCHMARK).any():
        said.append("Items: how many both have scored; + and -: on how many of them B is better and worse.")
    said += found.notes
    for side, only in (("A", found.only_a), ("B", found.only_b)):
        if only:
            shown = only if everything else only[:6]
            more = f" and {len(only) - len(shown):,} more" if len(only) > len(shown) else ""
            said.append(f"Only in {side}: {', '.join(shown)}{more}.")
    return said


def _identical(found: Comparison) -> bool:
    return bool((found.frame["verdict"] == SAME).all())


def _counts(found: Comparison) -> dict[str, dict[str, int]]:
    """How many differences of each level have each verdict."""
    groups = {str(level): rows["verdict"].value_counts() for level, rows in found.frame.groupby("level", sort=False)}
    return {
        level: {verdict: int(groups[level].get(verdict, 0)) for verdict in VERDICTS}
        for level in (METHOD, DOMAIN, BENCHMARK)
        if level in groups
    }


def _painted(lines: list[str], rows: Sequence[Sequence[str]], colour: bool) -> list[str]:
    if not colour:
        return lines
    verdicts = ["", "", *(row[-1] for row in rows)]
    return [
        line.removesuffix(verdict) + paint(verdict, _COLOURS[verdict]) if verdict in _COLOURS else line
        for line, verdict in zip(lines, verdicts, strict=True)
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    number = float(value)
    return None if math.isnan(number) else number
