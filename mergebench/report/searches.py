"""The search logs: every candidate of every method and base, with the one that was chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mergebench.analysis.labels import title
from mergebench.report.curves import curve
from mergebench.report.grids import Cell, Grid
from mergebench.report.material import Material

CHOSEN = "chosen"


@dataclass(frozen=True)
class Candidate:
    """A point of a grid: its parameters, the mean over seeds of its objective on all items that it was scored on (None where it was
    not), with how many seeds, on how many blocks of items (0: all at once), in how many seconds, and whether it was chosen."""

    number: int
    stage: str
    parameters: Mapping[str, Any]
    objective: float | None
    seeds: int
    blocks: int
    seconds: float | None
    chosen: bool


@dataclass(frozen=True)
class Search:
    """The search of one method on one base; without candidates where its log is missing."""

    base: str
    method: str
    candidates: list[Candidate] = field(default_factory=list)
    objective: float | None = None
    reached: list[float] = field(default_factory=list)

    @property
    def there(self) -> bool:
        """Whether it has been made."""
        return bool(self.candidates)

    @property
    def name(self) -> str:
        """Method and base in words."""
        return f"{title(self.method)} on {self.base}"

    @property
    def anchor(self) -> str:
        """Of its place in the page."""
        return f"search-{self.base}-{self.method}"

    def grid(self) -> Grid:
        """A row per candidate."""
        rows: list[list[Cell | str]] = [
            [
                str(each.number),
                each.stage,
                parameters(each.parameters),
                "missing" if each.objective is None else f"{100 * each.objective:.2f}",
                str(each.seeds),
                str(each.blocks) if each.blocks else "all items",
                "n/a" if each.seconds is None else f"{each.seconds:.1f}",
                CHOSEN if each.chosen else "",
            ]
            for each in self.candidates
        ]
        return Grid.of(["Candidate", "Stage", "Parameters", "Objective (%)", "Seeds", "Blocks", "Seconds", "Chosen"], rows)


def searches(material: Material) -> list[Search]:
    """The searches of a campaign in its order, those that are missing included."""
    logs, winners, curves = (_by_place(material, name) for name in ("searches", "winners", "curves"))
    found = []
    for base in material.scope.bases:
        for method in material.scope.tuned:
            where = (base, method)
            best = yaml.safe_load(winners[where].read_text(encoding="utf-8")) if where in winners else {}
            candidates = _candidates(pd.read_parquet(logs[where]), best) if where in logs else []
            reached = pd.read_parquet(curves[where], columns=["objective"])["objective"].tolist() if where in curves else []
            found.append(Search(base, method, candidates, best.get("objective"), reached))
    return found


def summary(found: list[Search]) -> Grid:
    """A row per search: how many candidates, the one that was chosen, and the best objective after each evaluation."""
    rows: list[list[Cell | str]] = []
    for each in found:
        chosen = next((candidate for candidate in each.candidates if candidate.chosen), None)
        at = f"best objective of {each.name} after each evaluation"
        rows.append(
            [
                each.base,
                Cell(title(each.method), href=f"#{each.anchor}" if each.there else ""),
                str(len(each.candidates)) if each.there else "missing",
                parameters(chosen.parameters) if chosen else "missing",
                "missing" if each.objective is None else f"{100 * each.objective:.2f}",
                Cell("" if each.reached else "missing", drawing=curve(each.reached, at)),
            ]
        )
    return Grid.of(["Base", "Method", "Candidates", "Chosen", "Objective (%)", "Best so far"], rows)


def rows(found: list[Search]) -> list[dict[str, Any]]:
    """A row per candidate for CSV; one for a search that is missing."""
    made: list[dict[str, Any]] = []
    for search in found:
        where = {"base": search.base, "method": search.method}
        if not search.there:
            made.append(
                {
                    **where,
                    **dict.fromkeys(("candidate", "stage", "parameters", "objective", "seeds", "blocks", "seconds", CHOSEN), "missing"),
                }
            )
        made += [
            {
                **where,
                "candidate": each.number,
                "stage": each.stage,
                "parameters": json.dumps(each.parameters, sort_keys=True),
                "objective": "missing" if each.objective is None else round(each.objective, 6),
                "seeds": each.seeds,
                "blocks": each.blocks or "all",
                "seconds": "n/a" if each.seconds is None else round(each.seconds, 3),
                CHOSEN: "yes" if each.chosen else "no",
            }
            for each in search.candidates
        ]
    return made


def parameters(values: Mapping[str, Any]) -> str:
    """``density 0.2, scale 0.5``; values per domain by their names."""
    said = []
    for name, value in sorted(values.items()):
        if isinstance(value, Mapping):
            said += [f"{name}.{key} {_value(one)}" for key, one in sorted(value.items())]
        elif value is not None:
            said.append(f"{name} {_value(value)}")
    return ", ".join(said) or "none"


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _by_place(material: Material, name: str) -> dict[tuple[str, str], Path]:
    return {(path.parts[-3], path.parts[-2]): path for path in material.paths(name)}


def _candidates(log: pd.DataFrame, best: Mapping[str, Any]) -> list[Candidate]:
    """One entry per candidate of a log; scores on all items count before those on blocks of them."""
    log = log.assign(**{name: default for name, default in _ABSENT.items() if name not in log})
    found = []
    for number, mine in log.groupby("candidate", sort=True):
        whole = mine[mine["block"].isna()]
        counted = whole if len(whole) else mine
        scored = counted.groupby(["seed", "domain", "surrogate"], dropna=False)["normalised"].mean()
        objective = scored.groupby(level=["seed", "domain"], dropna=False).mean().mean()
        chosen = json.loads(mine["parameters"].iloc[0])
        seconds = mine.drop_duplicates(["seed", "block"])["seconds"].sum(min_count=1)
        found.append(
            Candidate(
                int(number),  # type: ignore[call-overload]
                str(mine["stage"].iloc[0]),
                chosen,
                None if pd.isna(objective) else float(objective),
                int(mine["seed"].nunique()),
                0 if len(whole) else int(mine["block"].nunique()),
                None if pd.isna(seconds) else float(seconds),
                bool(chosen) and chosen == best.get("parameters"),
            )
        )
    return found


_ABSENT = {"parameters": "{}", "seed": 0, "domain": "", "normalised": float("nan"), "seconds": float("nan"), "block": None}
