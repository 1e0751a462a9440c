"""What two runs have in common: the models that are paired, their benchmarks and items, and whether their scores can be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from mergebench.analysis.comparable import KINDS, differences
from mergebench.analysis.labels import BASE, SPECIALIST_PREFIX
from mergebench.analysis.matching import Match, match
from mergebench.analysis.opened import Run
from mergebench.errors import MergebenchError

Pair = tuple[str, str, str]
"""Base, model of A, model of B."""
PairOfScores = tuple[str, str, str, str]
"""A pair and a benchmark."""
Matches = Mapping[PairOfScores, Match]
Progress = Callable[[int, int, str], None]
"""Told how many benchmarks of how many are done, and the one that comes."""


@dataclass(frozen=True)
class Options:
    """What may be chosen: differences (`comparable.KINDS`) to compare despite of, whether benchmarks with other differences are left
    out instead of refused, and whether both runs are normalised by A's specialists and base."""

    allowed: frozenset[str] = frozenset()
    leave_out: bool = False
    by_first: bool = False


def is_reference(model: str) -> bool:
    """Whether scores are normalised by this model's."""
    return model == BASE or model.startswith(SPECIALIST_PREFIX)


def asked_pairs(a: Run, b: Run, bases: tuple[str, ...]) -> list[Pair]:
    """The pairs to report: the two models that are meant, or every model that both runs have, on each base where both are scored.

    Raises:
        MergebenchError: there is none.
    """
    if a.model is not None and b.model is not None:
        found = [(base, a.model, b.model) for base in bases if a.has(base, a.model) and b.has(base, b.model)]
        if not found:
            raise MergebenchError(f"{a.name} and {b.name} were not scored on the same base: nothing can be paired.")
        return found
    models = [model for model in a.models(bases) if model in b.models(bases)]
    found = [(base, model, model) for base in bases for model in models if a.has(base, model) and b.has(base, model)]
    if not found:
        raise MergebenchError(
            f"{a.name} and {b.name} have no model in common on {', '.join(bases)}; name two with RUN:METHOD RUN:METHOD to compare them."
        )
    return found


def shared_benchmarks(a: Run, b: Run, pairs: list[Pair]) -> set[str]:
    """Benchmarks on which both models of one of the pairs are scored."""
    there = {(base, model): {name for x, y, name in b.values if (x, y) == (base, model)} for base, _, model in pairs}
    wanted: dict[tuple[str, str], list[set[str]]] = {}
    for base, one, other in pairs:
        wanted.setdefault((base, one), []).append(there[base, other])
    return {name for base, model, name in a.values for each in wanted.get((base, model), ()) if name in each}


def match_items(a: Run, b: Run, pairs: list[Pair], names: list[str], progress: Progress | None) -> dict[PairOfScores, Match]:
    """Matched items by pair and benchmark, where both have item files."""
    found = {}
    for done, name in enumerate(names):
        if progress:
            progress(done, 2 * len(names), name)
        for base, one, other in pairs:
            files = a.items.get((base, one, name)), b.items.get((base, other, name))
            if files[0] and files[1]:
                found[base, one, other, name] = match(files[0], files[1])
    return found


def incomparable(a: Run, b: Run, pairs: list[Pair], names: list[str], matches: Matches) -> dict[str, dict[str, str]]:
    """What makes scores incomparable, in words, by kind and benchmark."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        for base, one, other in pairs:
            records = a.records.get((base, one, name)), b.records.get((base, other, name))
            if records[0] is None or records[1] is None:
                continue
            for kind, text in differences(records[0], records[1]).items():
                found.setdefault(kind, {}).setdefault(name, text)
            matched = matches.get((base, one, other, name))
            if matched is not None and not matched.items:
                found.setdefault("data", {}).setdefault(name, "no item in common")
    return found


def refuse(a: Run, b: Run, found: Mapping[str, Mapping[str, str]], options: Options) -> list[str]:
    """Refuse differences that are not allowed; returns sentences on those that are.

    Raises:
        MergebenchError: scores differ in what they measure, and neither option is given.
    """
    said = []
    for kind, benchmarks in found.items():
        text = f"{KINDS[kind]} of {', '.join(f'{name} ({why})' for name, why in list(benchmarks.items())[:3])}"
        text += f" and {len(benchmarks) - 3} more" if len(benchmarks) > 3 else ""
        if kind not in options.allowed and not options.leave_out:
            raise MergebenchError(
                f"{a.name} and {b.name} differ in {text}: their scores do not measure the same. --allow {kind} compares them "
                "nevertheless, --leave-out compares the other benchmarks."
            )
        if kind in options.allowed:
            said.append(f"Compared although the runs differ in {text}.")
        else:
            said.append(f"Left out, because the runs differ in {KINDS[kind]}: {', '.join(benchmarks)}.")
    return said


def only_in(
    run: Run, other: Run, bases: tuple[str, ...], mine: list[tuple[str, str]], theirs: list[tuple[str, str]], entries: pd.DataFrame
) -> list[str]:
    """What one run has and the other lacks: bases, models, benchmarks, then single scores.

    Args:
        run: the one that has it.
        other: the one that lacks it.
        bases: in common.
        mine: base and model of the run in every pair.
        theirs: their counterparts.
        entries: benchmarks, in the order to list them.
    """
    counterpart, compared = dict(zip(mine, theirs, strict=True)), set(theirs)
    found = [f"base {base}" for base in run.bases if base not in bases]
    for model in run.models(bases) if run.model is None else [run.model]:
        alone = [base for base in bases if run.has(base, model) and (base, model) not in counterpart]
        everywhere = not any((base, model) in counterpart for base in bases)
        found += [f"model {model}"] if alone and everywhere else [f"model {model} on {base}" for base in alone]
    scored = {name for base, model, name in other.values if (base, model) in compared}
    benchmarks = {name for base, model, name in run.values if (base, model) in counterpart}.difference(scored)
    found += [f"benchmark {name}" for name in entries.index if name in benchmarks]
    rest = [
        key for key in run.values
        if key[:2] in counterpart and key[2] not in benchmarks and (*counterpart[key[0], key[1]], key[2]) not in other.values
    ]  # fmt: skip
    return [*found, *(f"scores/{'/'.join(key)}.json" for key in sorted(rest))]
