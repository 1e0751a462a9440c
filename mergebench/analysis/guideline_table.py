"""The table of the guideline: which methods to use in which situation, here and by the tables of the paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pandas as pd

from mergebench.analysis.comparisons import ALPHA
from mergebench.analysis.cost_table import figures, missing_costs, shown_bases
from mergebench.analysis.guideline import PAPER, Answer, Choice, Situation, Test, agreement, answer, by_items, by_ranks, data_title
from mergebench.analysis.labels import title
from mergebench.analysis.pareto_table import JOINED, missing_scores, points, published_points, titles
from mergebench.analysis.published import OVERALL as PUBLISHED_OVERALL
from mergebench.analysis.published import PUBLISHED_NEEDS, published_table
from mergebench.analysis.spending import needs
from mergebench.analysis.tables import NOT_APPLICABLE, OVERALL, Evidence, Table, missing_note

Key = TypeVar("Key")
TOLERANCES = (None, 5.0, 2.0)
MEMORY_SIZES = (8, 16, 24, 32, 40, 48, 64, 80, 96, 128, 141, 192, 256, 384, 512, 768, 1024, 1536, 2048)
"""GiB that GPUs and machines are sold with."""
_FINE = 8


def guideline(evidence: Evidence) -> Table:
    """Of what a situation allows, the methods that are not significantly worse than the best."""
    rows: list[dict[str, object]] = []
    for base in shown_bases(evidence):
        rows += _situations(base, choices(evidence, base), _test_of(evidence, base))
    rows += _situations("Paper's tables", published_choices(), by_ranks(published_table(7).drop(PUBLISHED_OVERALL)))
    frame = pd.DataFrame(rows)
    display = frame.assign(
        recommended=frame["recommended"].map(titles),
        cheapest=frame["cheapest"].map(lambda method: method if method == NOT_APPLICABLE else title(method)),
        price=frame["price"].map(figures),
    ).drop(columns="memory" if (frame["memory"] == "any").all() else [])
    money = evidence.scope.prices["currency"] if evidence.scope.prices else NOT_APPLICABLE
    return Table(
        "guideline",
        frame,
        [
            "Rule: recommended are the best of the methods that the situation allows, first, and those that are not significantly worse in "
            f"normalised performance (paired on the same items; Holm over all pairs of what is allowed, {100 * ALPHA:.0f} %). "
            "Of equals, the cheapest is named.",
            "Validation data are needed to search a grid, training data to measure statistics. Forgetting: retention as measured, without "
            "its error. Memory: sizes (GiB) that tell methods apart; of GPUs where the base's jobs held any, else resident memory.",
            "Paper's tables: Friedman's and Nemenyi's tests over its eight bases, which tell less apart than items do. The paper: whether "
            "its guideline (section 4.4) names only what is recommended here. RegMean is tuned, so it needs both kinds of data.",
            "`mergebench guideline` answers for one situation, and says why each method is in or out.",
            *missing_note([*missing_scores(evidence), *missing_costs(evidence)]),
        ],
        display=display,
        headings={
            "base": "Base",
            "data": "Data",
            "memory": "Memory",
            "forgetting": "Forgetting",
            "recommended": "Recommended",
            "performance": "Performance of the best",
            "retention": "Retention of the best",
            "cheapest": "Cheapest of them",
            "price": f"Its price ({money})",
            "decides": "What decides",
            "paper": "The paper's guideline",
        },
        decimals={"price": _FINE},
        names=5,
    )


TABLES: dict[str, Callable[[Evidence], Table]] = {"guideline": guideline}


def choices(evidence: Evidence, base: str) -> list[Choice]:
    """Every method of the campaign as a choice, with what it needs and what it has used on one base or over all."""
    values, spent = points(evidence, base), evidence.spending.loc[base]
    on_gpus = bool((spent["gpu_hours"] > 0).any())
    peak = spent["peak_gpu_memory_mib" if on_gpus else "peak_memory_mib"] / 1024
    return [
        Choice(
            method=method,
            needs=needs(evidence.scope, method),
            performance=float(values.loc[method, "performance"]),
            retention=float(values.loc[method, "retention"]),
            memory_gib=float(peak[method]),
            gpu_hours=float(spent.loc[method, "gpu_hours"]),
            hours=float(spent.loc[method, "wall_seconds"]) / 3600,
            price=float(spent.loc[method, "price"]),
        )
        for method in evidence.scope.methods
    ]


def published_choices(base: str = OVERALL) -> list[Choice]:
    """The paper's methods as choices, with its values and nothing on cost; of all bases, or of one as the paper writes it."""
    values = published_points(base)
    return [
        Choice(method, need, float(values.loc[method, "performance"]), float(values.loc[method, "retention"]))
        for method, need in PUBLISHED_NEEDS.items()
    ]


@dataclass(frozen=True)
class _Given:
    """An answer as the table shows it; answers that recommend the same share a row, with the reasons of the first."""

    recommended: tuple[str, ...]
    untested: tuple[str, ...]
    asked: tuple[str, ...]
    agrees: str
    paper: str = field(compare=False)
    decides: str = field(compare=False)


def _test_of(evidence: Evidence, base: str) -> Test:
    pairs = evidence.comparisons["performance", base]
    return by_items({frozenset((row.better, row.worse)): float(row.p) for row in pairs.itertuples()})


def _memory_limits(found: Sequence[Choice]) -> list[float | None]:
    """No limit, and of the sizes between which the methods that fit change, the smallest of each kind; falling."""
    needed = [choice.memory_gib for choice in found if not math.isnan(choice.memory_gib)]
    fitting = {size: sum(each <= size for each in needed) for size in MEMORY_SIZES}
    limits = {count: float(size) for size, count in sorted(fitting.items(), reverse=True) if 0 < count < len(needed)}
    return [None, *sorted(limits.values(), reverse=True)]


def _situations(base: str, found: Sequence[Choice], test: Test) -> list[dict[str, object]]:
    """Rows of the guideline for one base: situations of one kind that have the same answer share a row."""

    def given(data: frozenset[str], memory: float | None, forgetting: float | None) -> _Given:
        situation = Situation(data, memory_gib=memory, forgetting=forgetting)
        said = answer(found, situation, test)
        paper = agreement(situation, said)
        return _Given(said.recommended, tuple(said.untested), PAPER[data], paper.partition(" (")[0], paper, _decides(said))

    limits = _memory_limits(found)
    wholes = {
        data_title(data): _together(
            {
                "any" if memory is None else f"{memory:g} GiB": _together(
                    {"any" if lost is None else f"at most {lost:g} %": given(data, memory, lost) for lost in TOLERANCES}
                )
                for memory in limits
            }
        )
        for data in PAPER
    }
    return [
        {"base": base, "data": data.replace(", ", JOINED), "memory": memory, "forgetting": forgetting, **_cells(found, each)}
        for data, whole in _together(wholes)
        for memory, block in whole
        for forgetting, each in block
    ]


def _together(named: Mapping[str, Key]) -> tuple[tuple[str, Key], ...]:
    """What is equal, once, under its names."""
    names: dict[Key, list[str]] = {}
    for name, each in named.items():
        names.setdefault(each, []).append(name)
    return tuple((", ".join(mine), each) for each, mine in names.items())


def _cells(found: Sequence[Choice], given: _Given) -> dict[str, object]:
    chosen = [choice for method in given.recommended for choice in found if choice.method == method]
    best = chosen[0] if chosen else None
    cheapest = min((c for c in chosen if not math.isnan(c.price)), key=lambda choice: choice.price, default=None)
    return {
        "recommended": JOINED.join(given.recommended) or NOT_APPLICABLE,
        "performance": best.performance if best else NOT_APPLICABLE,
        "retention": best.retention if best else NOT_APPLICABLE,
        "cheapest": cheapest.method if cheapest else NOT_APPLICABLE,
        "price": cheapest.price if cheapest else NOT_APPLICABLE,
        "decides": given.decides,
        "paper": given.paper,
    }


def _decides(given: Answer) -> str:
    """What keeps others out, but for data: limits, the nearest of those that are worse, and what cannot be told."""
    beyond: dict[str, list[str]] = {}
    for method, why in given.impossible.items():
        if not why.endswith(" data"):
            kind = "forget too much" if why.startswith("forgets") else "need more memory" if why.endswith("GiB") else why
            beyond.setdefault(kind, []).append(title(method))
    parts = [f"{kind}: {', '.join(names)}" for kind, names in beyond.items()]
    if given.worse:
        nearest, why = next(iter(given.worse.items()))
        more = f", and {len(given.worse) - 1} more" if len(given.worse) > 1 else ""
        parts.append(f"{title(nearest)} {why}{more}")
    if given.untested:
        parts.append(f"cannot be told of {', '.join(map(title, given.untested))}: {next(iter(given.untested.values()))}")
    if not parts:
        return "nothing else is possible" if len(given.recommended) == 1 else "nothing: all that is possible is as good"
    return JOINED.join(parts)
