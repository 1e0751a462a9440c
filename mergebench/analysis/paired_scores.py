"""Scores of two runs on their common items, and those scores on resampled items: the same resamples for both."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mergebench import catalogue
from mergebench.analysis.disagreement import disagreements
from mergebench.analysis.items import MEAN, MEAN_OVER_GROUPS, read_outcomes
from mergebench.analysis.opened import Key, Run
from mergebench.analysis.pairing import Matches, Pair, PairOfScores
from mergebench.analysis.resampling import TOLERANCE, check, point, replicate
from mergebench.errors import MergebenchError

AggregateOf = Callable[[str], str]
"""How outcomes of items become the score of a benchmark of the catalogue; see `items.AGGREGATES`."""


@dataclass
class Side:
    """One run's numbers on the common items: values, and resampled scores."""

    name: str
    run: Run
    models: tuple[str, ...]
    values: dict[Key, float] = field(default_factory=dict)
    draws: dict[Key, np.ndarray] = field(default_factory=dict)


def resample(
    name: str,
    sides: list[Side],
    bases: tuple[str, ...],
    pairs: list[Pair],
    matches: Matches,
    aggregate_of: AggregateOf,
    resamples: int,
) -> dict[PairOfScores, int]:
    """Fill in one benchmark's values and draws, of the common items where items are known.

    Args:
        name: of the benchmark.
        sides: A and B; they get what is found.
        bases: those of the comparison.
        pairs: models that are confined to the items that both have scored.
        matches: those items.
        aggregate_of: see there.
        resamples: how many draws.

    Returns:
        On how many clusters of items each pair differs, where items are known.

    Raises:
        MergebenchError: items cannot be read, or do not give the value of their record.
    """
    files: dict[tuple[str, str], Path] = {}
    recorded, keys = {}, {}
    for side in sides:
        for base in bases:
            for model in side.models:
                key = (base, model, name)
                if key in side.run.values:
                    side.values[key] = side.run.values[key]
                if key in side.run.items:
                    place = (f"{side.name}/{base}", model)
                    files[place], recorded[place], keys[place] = side.run.items[key], side.run.values[key], (side, key)
    if not files:
        return {}
    way = aggregate_of(name) if name in catalogue.benchmarks() else _aggregate(name, files, recorded)
    outcomes = read_outcomes(name, way, files)
    check(outcomes, files, recorded)
    kept = _kept(files, name, pairs, matches)
    if kept:
        outcomes = read_outcomes(name, way, files, kept)
    for place, value, draws in zip(outcomes.models, point(outcomes), replicate(outcomes, resamples), strict=True):
        side, key = keys[place]
        side.values[key], side.draws[key] = float(value), draws
    both = {(*pair, name): ((f"A/{pair[0]}", pair[1]), (f"B/{pair[0]}", pair[2])) for pair in pairs}
    both = {key: places for key, places in both.items() if places[0] in files and places[1] in files}
    return dict(zip(both, disagreements(outcomes, both.values()), strict=True))


def _aggregate(name: str, files: Mapping[tuple[str, str], Path], recorded: Mapping[tuple[str, str], float]) -> str:
    """How items become the score of a benchmark that another copy of the package has added: as gives the recorded value."""
    place = min(files)
    for way in (MEAN, MEAN_OVER_GROUPS):
        (value,) = point(read_outcomes(name, way, {place: files[place]}))
        if abs(value - recorded[place]) <= TOLERANCE:
            return way
    raise MergebenchError(f"benchmark '{name}' is not in this catalogue, and its score is no mean of its items; add it (CONTRIBUTING.md).")


def _kept(files: Collection[tuple[str, str]], name: str, pairs: list[Pair], matches: Matches) -> dict[tuple[str, str], frozenset[str]]:
    """Items to which each model is confined. A reference without a counterpart is confined as the others of its base are."""
    kept: dict[tuple[str, str], frozenset[str]] = {}
    paired = set()
    for base, one, other in pairs:
        matched = matches.get((base, one, other, name))
        for place in ((f"A/{base}", one), (f"B/{base}", other)):
            if matched is not None:
                paired.add(place)
                if matched.common is not None:
                    kept[place] = kept[place] & matched.common if place in kept else matched.common
    for place in set(files) - paired:
        others = [kept[each] for each in kept if each[0].partition("/")[2] == place[0].partition("/")[2]]
        if others:
            kept[place] = frozenset.intersection(*others)
    return kept


def share_references(sides: list[Side], references: list[str]) -> None:
    """Give B the specialists and bases of A."""
    first, second = sides
    for held in ("values", "draws"):
        mine, theirs = getattr(first, held), getattr(second, held)
        for key in [key for key in theirs if key[1] in references]:
            del theirs[key]
        theirs.update({key: value for key, value in mine.items() if key[1] in references})
