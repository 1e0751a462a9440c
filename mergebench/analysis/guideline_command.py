"""`mergebench guideline`: which method to use in one situation, from the tables of a finished run or from those of the paper."""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mergebench.analysis.cost_table import figures
from mergebench.analysis.guideline import Answer, Choice, Situation, Test, agreement, answer, by_items, by_ranks, data_title
from mergebench.analysis.guideline_table import published_choices
from mergebench.analysis.labels import title
from mergebench.analysis.outputs import WARNING
from mergebench.analysis.published import OVERALL, published_names, published_table
from mergebench.analysis.spending import TRAINING, VALIDATION
from mergebench.analysis.tables import NOT_APPLICABLE
from mergebench.errors import MergebenchError, nearest

_TABLES = ("costs", "pareto", "differences")


def show(options: argparse.Namespace) -> None:
    """Print the answer for the situation that the options describe.

    Raises:
        MergebenchError: a table is not there, the base is unknown, or a limit is not a number that makes sense.
    """
    situation = _situation(options)
    print(_of_the_paper(situation, options) if options.published else _of_a_run(situation, options.results / "tables", options.base))


def _situation(options: argparse.Namespace) -> Situation:
    data = frozenset(kind for kind, has in ((TRAINING, options.training_data), (VALIDATION, options.validation_data)) if has == "yes")
    for name in ("memory_gib", "gpu_hours", "hours", "forgetting"):
        value = getattr(options, name)
        if value is not None and not 0 <= value < math.inf:
            raise MergebenchError(f"--{name.replace('_', '-')} is {value:g}; give a number of at least 0.")
    return Situation(data, options.memory_gib, options.gpu_hours, options.hours, options.forgetting)


def _of_a_run(situation: Situation, tables: Path, wanted: str | None) -> str:
    rows = {name: _read(tables / f"{name}.csv") for name in _TABLES}
    warnings = list(dict.fromkeys(row[WARNING] for row in rows["pareto"] if row.get(WARNING)))
    bases = list(dict.fromkeys(row["base"] for row in rows["costs"]))
    base = wanted or bases[-1]
    if base not in bases:
        raise MergebenchError(f"--base {base}: this run has no such base; {nearest(base, bases)}.")
    values = {row["method"]: row for row in rows["pareto"] if row["source"] == "campaign" and row["base"] == base}
    spent = {row["method"]: row for row in rows["costs"] if row["base"] == base}
    on_gpus = any(_number(row["gpu_hours"]) > 0 for row in spent.values())
    choices = [_choice(method, values[method], row, on_gpus) for method, row in spent.items()]
    pairs = {
        frozenset((row["better"], row["worse"])): _number(row["p"])
        for row in rows["differences"]
        if row["measure"] == "performance" and row["base"] == base
    }
    where = "all bases together (means)" if base == OVERALL else base
    about = [f"From {tables}, {where}."]
    memory = "GPU memory" if on_gpus else "resident memory; its jobs held no GPU"
    about.append(f"Memory and time are those of this run on its machine ({memory}).")
    notes = ["Recommended are the best of what is possible and what paired tests on the same items (Holm, 5 %) do not find worse."]
    money = next((row["currency"] for row in spent.values()), NOT_APPLICABLE)
    return _text(situation, choices, by_items(pairs), money, [*(f"WARNING: {w}" for w in warnings), *about], notes)


def _of_the_paper(situation: Situation, options: argparse.Namespace) -> str:
    limits = [name for name in ("memory_gib", "gpu_hours", "hours") if getattr(options, name) is not None]
    if limits:
        raise MergebenchError(
            f"--published with --{limits[0].replace('_', '-')}: the paper prints no memory and no times; leave the limit out, or use a run."
        )
    names = published_names()
    base = names.get((options.base or OVERALL).lower(), options.base or OVERALL)
    if base != OVERALL and base not in names.values():
        raise MergebenchError(f"--base {base}: not in the paper's tables; {nearest(base, [OVERALL, *names])}.")
    table = published_table(7)
    if base == OVERALL:
        test, how = by_ranks(table.drop(OVERALL)), "Friedman's and Nemenyi's tests of its eight bases (5 %) do not find worse"
        about = "From the paper's Tables 7 and 8, means over its eight bases."
    else:
        test, how = by_ranks(table.loc[[base]]), "a test does not find worse; on one base, without items, nothing can be tested"
        about = f"From the paper's Tables 7 and 8, {base}."
    notes = [
        f"Recommended are the best of what is possible and what {how}.",
        "RegMean's grid was searched, so it needs validation data too.",
    ]
    return _text(
        situation, published_choices(base), test, NOT_APPLICABLE, [about, "The paper has no table of memory, time or price."], notes
    )


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return list(csv.DictReader(lines))
    except FileNotFoundError:
        raise MergebenchError(
            f"{path} does not exist; make it with `snakemake --profile PROFILE -- {path}`, or ask the paper's tables with --published."
        ) from None


def _choice(method: str, values: Mapping[str, str], spent: Mapping[str, str], on_gpus: bool) -> Choice:
    gpu_hours = _number(spent["gpu_hours"])
    peak = _number(spent["peak_gpu_memory_mib" if on_gpus else "peak_memory_mib"])
    return Choice(
        method=method,
        needs=spent["data"],
        performance=_number(values["performance"]),
        retention=_number(values["retention"]),
        memory_gib=0.0 if on_gpus and gpu_hours == 0 else peak / 1024,
        gpu_hours=gpu_hours,
        hours=_number(spent["wall_seconds"]) / 3600,
        price=_number(spent["price"]),
    )


def _number(cell: str) -> float:
    """NaN for a cell without a number ("missing", "n/a")."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _text(situation: Situation, choices: Sequence[Choice], test: Test, money: str, about: Sequence[str], notes: Sequence[str]) -> str:
    found = answer(choices, situation, test)
    by_name = {choice.method: choice for choice in choices}
    lines = [*about, "", f"You have: {_having(situation)}.", ""]
    if found.recommended:
        lines += ["Recommended", *_rows([by_name[method] for method in found.recommended], money)]
        priced = [by_name[method] for method in found.recommended if not math.isnan(by_name[method].price)]
        if len(priced) > 1:
            lines.append(f"Cheapest of them: {title(min(priced, key=lambda choice: choice.price).method)}.")
    else:
        lines.append("Nothing is possible: loosen a limit.")
    for heading, reasons in (("Not recommended", found.worse), ("Cannot be told", found.untested), ("Left out", found.impossible)):
        if reasons:
            lines += ["", heading]
            ordered = sorted((by_name[method] for method in reasons), key=lambda c: (math.isnan(c.performance), -c.performance))
            lines += _rows(ordered, money, reasons)
    lines += ["", f"The paper's guideline (section 4.4) {_compared(situation, found)}.", *notes]
    return "\n".join(lines)


def _having(situation: Situation) -> str:
    data = data_title(situation.data)
    parts = ["neither training nor validation data" if data == "nothing" else f"{data} data"]
    for value, words in (
        (situation.memory_gib, "{:g} GiB of memory"),
        (situation.gpu_hours, "{:g} GPU-hours"),
        (situation.hours, "{:g} hours"),
        (situation.forgetting, "at most {:g} % may be forgotten"),
    ):
        parts += [words.format(value)] if value is not None else []
    return ", ".join(parts)


def _rows(chosen: Sequence[Choice], money: str, reasons: Mapping[str, str] | None = None) -> list[str]:
    """A line for each method: what it has used, or why it is not recommended."""
    columns = {
        "performance": [_shown(choice.performance, ".1f") for choice in chosen],
        "retention": [_shown(choice.retention, ".1f") for choice in chosen],
        "memory (GiB)": [_shown(choice.memory_gib, ".3g") for choice in chosen],
        "GPU-hours": [_small(choice.gpu_hours) for choice in chosen],
        "hours": [_small(choice.hours) for choice in chosen],
        f"price ({money})": [_small(choice.price) for choice in chosen],
    }
    about = ("performance", "retention") if reasons else tuple(columns)
    shown = {name: columns[name] for name in about if any(cell != NOT_APPLICABLE for cell in columns[name])}
    names = [title(choice.method) for choice in chosen]
    width = max(map(len, names))
    shown = {name: [cell.rjust(max(map(len, (name, *cells)))) for cell in cells] for name, cells in shown.items()}
    header = "  " + " " * width + "".join(f"  {name.rjust(len(cells[0]))}" for name, cells in shown.items())
    body = [
        f"  {name.ljust(width)}"
        + "".join(f"  {cells[i]}" for cells in shown.values())
        + (f"  {reasons[chosen[i].method]}" if reasons else "")
        for i, name in enumerate(names)
    ]
    return [header, *body]


def _shown(value: float, form: str) -> str:
    return NOT_APPLICABLE if math.isnan(value) else f"{value:{form}}"


def _small(value: float) -> str:
    return NOT_APPLICABLE if math.isnan(value) else figures(value)


def _compared(situation: Situation, found: Answer) -> str:
    text = agreement(situation, found)
    return "cannot be compared" if text == NOT_APPLICABLE else text
