"""The result of a campaign as plain text for a terminal. Needs nothing but the standard library, so it is instant."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from mergebench.analysis.labels import BASE, MULTITASK, UNTOUCHED_BASE, model_title, signed, title
from mergebench.analysis.outputs import WARNING
from mergebench.errors import MergebenchError

_MISSING = "missing"
_HEADER = ("", "performance", "± s.e.", "recovery", "retention", "algorithm", "validation", "memory")


def render_folder(results: Path) -> str:
    """Text of one preset's results: the headline per base, best method first, the specialisation matrix, and where the rest is.

    Args:
        results: folder with `tables/headline.csv` and, as far as they are made, `tables/specialisation.csv`, `figures` and
            Snakemake's `report.html`.

    Raises:
        MergebenchError: the headline table has not been made yet.
    """
    tables = results / "tables"
    if not (tables / "headline.csv").is_file():
        raise MergebenchError(f"{tables / 'headline.csv'} does not exist; run the workflow to its end first (for example `make demo`).")
    lines = [*_warnings(tables / "headline.csv"), *_headline(tables / "headline.csv")]
    if (tables / "specialisation.csv").is_file():
        lines += _specialisation(tables / "specialisation.csv")
    places = (("Tables", tables), ("Figures", results / "figures"), ("Report", results / "report.html"))
    lines += [f"{name + ':':9}{path}" for name, path in places if path.exists()]
    return "\n".join(lines)


def _warnings(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as lines:
        said = dict.fromkeys(row[WARNING] for row in csv.DictReader(lines) if row.get(WARNING))
    return [line for warning in said for line in (f"WARNING: {warning}", "")]


def _headline(path: Path) -> list[str]:
    lines = ["Normalised performance (% of the specialists), recovery (0 = base, 100 = specialists), retention (% of base)", ""]
    for base, rows in _by_base(path).items():
        rows.sort(key=_rank)
        body = [
            (
                ("  " if row["method"] in (UNTOUCHED_BASE, MULTITASK) else "") + title(row["method"]),
                _number(row["normalised_performance"], 1),
                _number(row["standard_error"], 1),
                _number(row["recovery"], 1),
                _number(row["retention"], 1),
                _number(row["algorithm_seconds"], 1, " s"),
                _number(row["validation_seconds"], 1, " s"),
                _number(row["peak_memory_mib"], 0, " MiB"),
            )
            for row in rows
        ]
        lines += [*_aligned((base, *_HEADER[1:]), body), ""]
    return lines


def _specialisation(path: Path) -> list[str]:
    lines = ["Specialisation: domain scores in points (gain over the base)", ""]
    for base, rows in _by_base(path).items():
        domains = [column for column in rows[0] if f"gain_{column}" in rows[0]]
        body = []
        for row in rows:
            cells = [_number(row[domain], 0) for domain in domains]
            if row["model"] != BASE:
                cells = [f"{cell} {_gain(row[f'gain_{domain}'])}" for cell, domain in zip(cells, domains, strict=True)]
            body.append((model_title(row["model"]), *cells))
        lines += [*_aligned((base, *map(title, domains)), body), ""]
    return lines


def _by_base(path: Path) -> dict[str, list[dict[str, str]]]:
    groups: dict[str, list[dict[str, str]]] = {}
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            groups.setdefault(row["base"], []).append(row)
    return groups


def _rank(row: dict[str, str]) -> tuple[bool, float]:
    """Best first; what is missing last."""
    value = row["normalised_performance"]
    return (True, 0.0) if value == _MISSING else (False, -float(value))


def _number(text: str, decimals: int, unit: str = "") -> str:
    if text == _MISSING:
        return text
    return "-" if text == "n/a" else f"{float(text):.{decimals}f}{unit}"


def _gain(text: str) -> str:
    return "" if text == _MISSING else f"({signed(float(text), 0)})"


def _aligned(header: tuple[str, ...], body: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(line[i]) for line in (header, *body)) for i in range(len(header))]
    rule = tuple("-" * width for width in widths)
    return [
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in (header, rule, *body)
    ]
