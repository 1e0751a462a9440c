"""The result of a campaign as plain text for a terminal. Needs nothing but the standard library, so it is instant."""

from __future__ import annotations

import csv
from pathlib import Path

from mergebench.analysis.labels import BASE, CONTROL_MERGES, MULTITASK, UNTOUCHED_BASE, model_title, signed, title
from mergebench.analysis.outputs import WARNING
from mergebench.analysis.terminal import aligned
from mergebench.errors import MergebenchError

_MISSING = "missing"
_HEADER = ("", "performance", "± s.e.", "recovery", "retention", "algorithm", "validation", "memory")


def render_folder(results: Path) -> str:
    """Text of one preset's results: the headline per base, best method first, the specialisation matrix, and where the rest is.

    Args:
        results: folder with `tables/headline.csv` and, as far as they are made, `tables/specialisation.csv`, `figures`,
            Snakemake's `snakemake-report.html` and `report/index.html`.

    Raises:
        MergebenchError: the headline table has not been made yet.
    """
    tables = results / "tables"
    if not (tables / "headline.csv").is_file():
        raise MergebenchError(f"{tables / 'headline.csv'} does not exist; run the workflow to its end first (for example `make demo`).")
    lines = [*_warnings(tables / "headline.csv"), *_headline(tables / "headline.csv")]
    if (tables / "specialisation.csv").is_file():
        lines += _specialisation(tables / "specialisation.csv")
    places = {
        "Tables": tables,
        "Figures": results / "figures",
        "Snakemake": results / "snakemake-report.html",
        "Report": results / "report" / "index.html",
    }
    lines += [f"{name + ':':11}{path}" for name, path in places.items() if path.exists()]
    return "\n".join(lines)


def warnings_of(path: Path) -> list[str]:
    """What a CSV table warns of, each once."""
    with path.open(encoding="utf-8", newline="") as lines:
        return list(dict.fromkeys(row[WARNING] for row in csv.DictReader(lines) if row.get(WARNING)))


def _warnings(path: Path) -> list[str]:
    return [line for warning in warnings_of(path) for line in (f"WARNING: {warning}", "")]


def _headline(path: Path) -> list[str]:
    lines = ["Normalised performance (% of the specialists), recovery (0 = base, 100 = specialists), retention (% of base)", ""]
    for base, rows in _by_base(path).items():
        rows.sort(key=_rank)
        body = [
            (
                ("  " if row["method"] in (UNTOUCHED_BASE, MULTITASK, *CONTROL_MERGES) else "") + title(row["method"]) + _mark(row),
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
        lines += [*aligned((base, *_HEADER[1:]), body), ""]
    if any(_mark(row) for rows in _by_base(path).values() for row in rows):
        lines += ["† not separable from the best method of its base at 5 % (tables/uncertainty.md)", ""]
    return lines


def _mark(row: dict[str, str]) -> str:
    """The dagger of the best method and of those that it cannot be told apart from."""
    return " †" if row.get("best_group") == "yes" else ""


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
        lines += [*aligned((base, *map(title, domains)), body), ""]
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
