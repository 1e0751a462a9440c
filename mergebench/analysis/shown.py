"""One table of a finished run in a terminal, and which tables there are. Needs nothing but the standard library."""

from __future__ import annotations

import re
from pathlib import Path

from mergebench.analysis.outputs import TABLES, table_title
from mergebench.analysis.terminal import WIDTH, aligned, fitted, wrapped
from mergebench.errors import MergebenchError, nearest


def list_tables(results: Path) -> str:
    """Text: every table by the name that `mergebench show --table` takes, and whether the results have it."""
    rows = [(table.stem, "yes" if _path(results, table.stem).is_file() else "not made", table.title) for table in TABLES]
    return "\n".join(aligned(("table", "made", "what it shows"), rows, left=3))


def render_table(results: Path, name: str, width: int = WIDTH) -> str:
    """Text of one table as its Markdown file has it: title, warnings, table, notes. Columns that do not fit follow below.

    Args:
        results: folder of a preset's results.
        name: file stem of a table, as `list_tables` lists them.
        width: of the terminal, in columns.

    Raises:
        MergebenchError: there is no such table, it has not been made yet, or its file is damaged.
    """
    known = [table.stem for table in TABLES]
    if name not in known:
        raise MergebenchError(f"there is no table {name!r}; {nearest(name, known)}.")
    path = _path(results, name)
    if not path.is_file():
        raise MergebenchError(f"{path} does not exist; make it with `snakemake ... -- {path}`, or run the workflow to its end.")
    lines = path.read_text(encoding="utf-8").splitlines()
    pipes = [_cells(line) for line in lines if line.startswith("|")]
    if len(pipes) < 2 or len({len(row) for row in pipes}) > 1:
        raise MergebenchError(f"{path} holds no table; delete it so that it is made again.")
    header, rule, *body = pipes
    left = sum(not cell.endswith(":") for cell in rule)
    text = [line for line in lines if line and not line.startswith(("|", "#"))]
    notes = [part for line in text if line.startswith("- ") for part in wrapped(_plain(line), width)]
    warnings = [part for line in text if not line.startswith("- ") for part in wrapped(_plain(line), width)]
    shown = fitted(header, body, left, width)
    return "\n".join([table_title(name), "", *warnings, *([""] if warnings else []), *shown, "", *notes])


def _path(results: Path, name: str) -> Path:
    return results / "tables" / f"{name}.md"


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]


def _plain(line: str) -> str:
    return line.replace("**", "").replace("`", "")
