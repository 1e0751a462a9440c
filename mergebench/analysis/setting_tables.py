"""The paper's tables of settings (1, 2, 3, 5 and 6) for the campaign at hand, what the paper prints beside what was used here.

What was used comes from the spec (`Scope.settings`, made by `workflow.settings` from configuration, catalogue and method registry) and, for
rows, from the manifests of the prepared data; what the paper prints, from the catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any

import pandas as pd
import yaml

from mergebench.analysis.latex_text import Formula
from mergebench.analysis.tables import NOT_APPLICABLE, Evidence, Table, missing_note
from mergebench.catalogue import FOLDER

_SOURCES = {"hub": "Hub", "local": "Local files", "tiny": "Generated"}
_ROLES = {"in_domain": "In-domain", "forgetting": "Forgetting", "surrogate": "Surrogate"}
_STATISTICS = {"fisher": "Fisher information", "gram": "Gram matrices", "mask": "trained masks"}

_MOST_VALUES = 5


@cache
def printed() -> dict[str, dict[str, dict[str, Any]]]:
    """What the paper's Tables 1, 2, 3 and 6 print, by kind (`methods`, `training`, `benchmarks`) and name of the catalogue."""
    content: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load((FOLDER / "published/settings.yaml").read_text(encoding="utf-8"))
    return content


def methods(evidence: Evidence) -> Table:
    """Table 1 and section 3.3: what each method computes, and what it needs for that."""
    rows = []
    for name, entry in _settings(evidence, "methods"):
        paper = printed()["methods"].get(name)
        expression = Formula(paper["expression"], paper["latex"]) if paper else NOT_APPLICABLE
        rows.append(
            {
                "category": paper["category"] if paper else "Not in the paper",
                "method": name,
                "title": entry["title"],
                "reference": entry["paper"],
                "arxiv": entry["arxiv"],
                "expression": expression,
                "note": paper["note"] if paper else entry["summary"],
                "needs": ", ".join(_needs(entry)) or "nothing",
                "statistics": _reads(entry),
                "random": "yes" if entry["random"] else "no",
            }
        )
    categories = list(dict.fromkeys(entry["category"] for entry in printed()["methods"].values()))
    rank = {category: number for number, category in enumerate(categories)}
    rows.sort(key=lambda row: rank.get(str(row["category"]), len(rank)))
    headings = {
        "category": "Category", "title": "Method", "reference": "Reference", "expression": "Merged model", "note": "Note", "needs": "Needs",
        "statistics": "Measured for it",
    }  # fmt: skip
    frame = _frame(rows, ["category", "method", "title", "reference", "arxiv", "expression", "note", "needs", "statistics", "random"])
    return Table(
        "methods",
        frame,
        [
            "Rule: category and note after the paper's Table 1, merged model after its appendix A; the rest is declared by the method "
            "itself. Needs: section 3.3, and validation scores wherever this campaign searches a grid. θ0: the base; θt: a specialist; τt: "
            "its task vector; m, mt: masks; Ft: Fisher information; Xt: inputs of a layer; n: number of specialists; λ, λt: coefficients.",
        ],
        display=frame[list(headings)],
        headings=headings,
        names=len(headings),
    )


def training_sets(evidence: Evidence) -> Table:
    """Table 2: what specialists are trained on."""
    rows = []
    for name, entry in _settings(evidence, "training"):
        prepared = evidence.prepared.get(name)
        source = _SOURCES.get(prepared["source"], prepared["source"]) if prepared else _absent(entry)
        rows.append(
            {
                "category": entry["category"],
                "dataset": name,
                "title": entry["title"],
                "description": printed()["training"].get(name, {}).get("description", NOT_APPLICABLE),
                "training": entry["training"],
                "source": source,
                "notes": "; ".join(prepared["notes"]) or NOT_APPLICABLE if prepared else source,
                "licence": entry["licence"],
            }
        )
    headings = {
        "category": "Category", "title": "Dataset", "description": "Description", "training": "Training", "source": "Source",
        "notes": "Notes", "licence": "Licence",
    }  # fmt: skip
    frame = _frame(rows, ["category", "dataset", "title", "description", "training", "source", "notes", "licence"])
    return Table(
        "training_sets",
        frame,
        [
            "Rule: descriptions are those of the paper's Table 2; source and notes say what was prepared here. n/a: not used, as where "
            "specialists are imported. Generated: rows in the schema of the set, for tiny twins.",
            *_unprepared(evidence, "training"),
        ],
        display=frame[list(headings)],
        headings=headings,
        names=len(headings),
    )


def benchmarks(evidence: Evidence) -> Table:
    """Table 3, with the forgetting benchmarks of section 4.2 and the surrogates of appendix B.2."""
    rows = []
    for name, entry in _settings(evidence, "benchmarks"):
        rows.append(
            {
                "role": _ROLES[entry["role"]],
                "category": entry["category"],
                "benchmark": name,
                "title": entry["title"],
                "metric_paper": printed()["benchmarks"].get(name, {}).get("metric", NOT_APPLICABLE),
                "metric": entry["metric"],
                "shots": entry["shots"],
                "data_paper": entry["paper"] or NOT_APPLICABLE,
                "complete": entry["rows"] or NOT_APPLICABLE,
                "prepared": _count(evidence, name, "rows"),
            }
        )
    headings = {
        "role": "Use", "category": "Category", "title": "Dataset", "metric_paper": "Metric (paper)", "metric": "Metric here",
        "shots": "Shots", "data_paper": "# Data (paper)", "complete": "# Complete", "prepared": "# Here",
    }  # fmt: skip
    frame = _frame(rows, ["role", "category", "benchmark", *list(headings)[2:]])
    return Table(
        "benchmarks",
        frame,
        [
            "Rule: metric and number of data as the paper's Table 3 prints them (it lists the in-domain benchmarks alone); # complete: "
            "rows that are scored in a complete copy; # here: rows that this campaign prepared. Shots: worked examples in the prompt.",
            *_unprepared(evidence, "benchmarks"),
        ],
        display=frame[list(headings)],
        headings=headings,
        decimals={"shots": 0, "complete": 0, "prepared": 0},
        names=5,
    )


def training_rows(evidence: Evidence) -> Table:
    """Table 5: how much data there is to train on."""
    rows = []
    for name, entry in _settings(evidence, "training"):
        prepared = evidence.prepared.get(name)
        rows.append(
            {
                "category": entry["category"],
                "dataset": name,
                "title": entry["title"],
                "training": entry["training"],
                "data_paper": entry["paper"] or NOT_APPLICABLE,
                "found": prepared["found"] if prepared else _absent(entry),
                "train": _count(evidence, name, "train", _absent(entry)),
                "calibration": _count(evidence, name, "calibration", _absent(entry)),
            }
        )
    headings = {
        "category": "Category", "title": "Dataset", "training": "Training method", "data_paper": "# Data (paper)", "found": "# Found",
        "train": "# Training", "calibration": "# Calibration",
    }  # fmt: skip
    frame = _frame(rows, ["category", "dataset", *list(headings)[1:]])
    return Table(
        "training_rows",
        frame,
        [
            "Rule: number of data as the paper's Table 5 prints it; # found: rows that the source yielded under the campaign's filter; "
            "# training and # calibration: rows that this campaign prepared, of which the latter are never trained on. n/a: not used.",
            *_unprepared(evidence, "training"),
        ],
        display=frame[list(headings)],
        headings=headings,
        decimals={"found": 0, "train": 0, "calibration": 0},
        names=4,
    )


def grids(evidence: Evidence) -> Table:
    """Table 6: what is searched, and how many candidates that makes."""
    rows: list[dict[str, Any]] = []
    for name, entry in _settings(evidence, "methods"):
        paper = printed()["methods"].get(name)
        rows.append(
            {
                "method": name,
                "title": entry["title"],
                "runs_paper": paper["runs"] if paper else NOT_APPLICABLE,
                "hyperparameters_paper": paper["hyperparameters"] if paper else NOT_APPLICABLE,
                "candidates": entry["candidates"],
                "seeds": entry["seeds"],
                "grid": _grid(entry),
            }
        )
    if rows:
        runs = [row["runs_paper"] for row in rows if row["runs_paper"] != NOT_APPLICABLE]
        total = {"method": "all", "title": "All", "runs_paper": sum(runs), "candidates": sum(row["candidates"] for row in rows)}
        rows.append({**total, "hyperparameters_paper": "-", "seeds": NOT_APPLICABLE, "grid": "-"})
    headings = {
        "title": "Method", "runs_paper": "# Runs (paper)", "hyperparameters_paper": "Hyperparameters (paper)", "candidates": "# Candidates",
        "seeds": "Seeds", "grid": "Grid here",
    }  # fmt: skip
    frame = _frame(rows, ["method", *headings])
    return Table(
        "grids",
        frame,
        [
            "Rule: candidates are the points of the grid; parameters that are chosen for one domain at a time make one candidate per "
            "domain and value, and come first. The paper's Table 6 prints counts and names of hyperparameters; where it prints no values, "
            "those of the grid are this configuration's.",
        ],
        display=frame[list(headings)],
        headings=headings,
        decimals={"runs_paper": 0, "candidates": 0, "seeds": 0},
        names=1,
    )


TABLES: dict[str, Callable[[Evidence], Table]] = {
    "methods": methods,
    "training_sets": training_sets,
    "benchmarks": benchmarks,
    "training_rows": training_rows,
    "grids": grids,
}


def _settings(evidence: Evidence, kind: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    return evidence.scope.settings.get(kind, {}).items()


def _frame(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _needs(entry: Mapping[str, Any]) -> list[str]:
    training = ["training samples"] if entry["data"] == "training" else []
    return training + (["validation scores"] if entry["grid"] or entry["data"] == "validation" else [])


def _reads(entry: Mapping[str, Any]) -> str:
    found = [_STATISTICS.get(kind, kind) for kind in entry["statistics"]]
    found += ["magnitude spectra"] if entry["spectra"] else []
    found += ["activations of samples"] if entry["calibration"] else []
    return ", ".join(found) or "-"


def _grid(entry: Mapping[str, Any]) -> str:
    """``density {0.1, 0.2} × scale {0.5, 1}``; what is chosen per domain first."""
    axes = {name: f"{name} {{{_values(values)}}}" for name, values in entry["grid"].items()}
    first = [f"{axes[name]} for each domain" for name in entry["per_domain"]]
    rest = " × ".join(text for name, text in axes.items() if name not in entry["per_domain"])
    return ", then ".join([*first, *([rest] if rest else [])]) or "-"


def _values(values: list[float]) -> str:
    """The values of an axis; of many with equal steps the first two and the last."""
    steps = [high - low for low, high in pairwise(values)]
    even = all(math.isclose(step, steps[0], abs_tol=1e-9) for step in steps)
    shown = [f"{value:g}" for value in values]
    return ", ".join([*shown[:2], "…", shown[-1]] if even and len(values) > _MOST_VALUES else shown)


def _absent(entry: Mapping[str, Any]) -> Any:
    """The cell of a training set that has no manifest: still to come, or never to come."""
    return math.nan if entry["prepared"] else NOT_APPLICABLE


def _count(evidence: Evidence, name: str, rows: str, absent: Any = math.nan) -> Any:
    prepared = evidence.prepared.get(name)
    return prepared["rows"].get(rows, NOT_APPLICABLE) if prepared else absent


def _unprepared(evidence: Evidence, kind: str) -> list[str]:
    wanted = [name for name, entry in _settings(evidence, kind) if entry.get("prepared", True)]
    return missing_note([f"data/{name}/manifest.json" for name in wanted if name not in evidence.prepared])
