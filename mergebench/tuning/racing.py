"""Which candidates of a grid to score on what: all of them, by successive halving, or by golden section along the scale.

The full grid is the paper's way and the default. The two others may miss its winner; by how much is measured in
docs/tuning-performance.md, from finished full grids.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mergebench.merging.candidates import Candidate
from mergebench.merging.registry import SCALE
from mergebench.tuning.trials import Trials

Strategy = Callable[[Trials], None]


def full(trials: Trials) -> None:
    """Score every candidate; under a budget those first that lie far from the ones before, else in the order of the grid."""
    numbers = list(trials.candidates)
    trials.ask(spread(trials.candidates) if trials.budget.limited else numbers)


def halving(trials: Trials, *, keep: float = 0.5, confidence: float = 2.0) -> None:
    """Score all candidates on a first block of items, the better ones on the next, and so on.

    After each block a candidate stays if it is among the best `keep` of those left, or if its paired difference from the leader is not
    larger than `confidence` standard errors. Those that never stand out from each other are thus all scored on everything.

    Values that are tuned per domain race against those of their own domain.

    Jamieson and Talwalkar 2016 (successive halving); Maron and Moore 1994 (racing, paired comparisons).
    """
    races = by_domains(trials.candidates)
    for block in range(trials.blocks):
        if not trials.ask([number for race in races for number in race], block):
            return
        races = [survivors(trials, race, keep, confidence) for race in races]


def survivors(trials: Trials, numbers: Sequence[int], keep: float, confidence: float) -> list[int]:
    """Those of some candidates that stay in the race, in their order."""
    ranked = sorted(numbers, key=lambda number: (-trials.objective(number), number))
    certain = set(ranked[: max(1, math.ceil(keep * len(ranked)))])
    leader = ranked[0]
    undecided = set()
    for number in ranked[len(certain) :]:
        difference, error = trials.difference(leader, number)
        if difference <= confidence * error:
            undecided.add(number)
    return [number for number in numbers if number in certain | undecided]


def golden(trials: Trials) -> None:
    """Search the scale by golden section on the grid's values, for every setting of the other parameters.

    Assumes that the objective rises and falls once along the scale; Kiefer 1953, in its form for a finite number of points
    (Fibonacci search): 10 values need 5 evaluations. Of two equal values the search goes towards the smaller scale. Candidates
    without a scale are all scored.
    """
    lines = [Line(numbers) for numbers in along_scale(trials.candidates)]
    while asked := sorted({number for line in lines for number in line.wanted}):
        if not trials.ask(asked):
            return
        for line in lines:
            line.narrow(trials.objective)


class Line:
    """A Fibonacci search for the highest of some values in order.

    Args:
        numbers: the candidates, by rising scale.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = list(numbers)
        self._low, self._steps = 0, [1, 1, 2]
        while self._steps[-1] <= len(numbers):
            self._steps.append(self._steps[-1] + self._steps[-2])
        self._done = False

    @property
    def wanted(self) -> list[int]:
        """The candidates that must be scored to go on; none once the search has ended."""
        if self._done:
            return []
        return [self.numbers[place - 1] for place in self._probes() if place <= len(self.numbers)]

    def narrow(self, value: Callable[[int], float]) -> None:
        """Leave out the part of the line that cannot hold the highest value."""
        if self._done:
            return
        probes = self._probes()
        if len(probes) == 1:
            self._done = True
            return
        first, second = (value(self.numbers[p - 1]) if p <= len(self.numbers) else -math.inf for p in probes)
        if first < second:
            self._low = probes[0]
        self._steps.pop()

    def _probes(self) -> list[int]:
        """Places, from 1, inside the open interval (low, low + last step)."""
        return sorted({self._low + self._steps[-3], self._low + self._steps[-2]})


def by_domains(candidates: Mapping[int, Candidate]) -> list[list[int]]:
    """Candidates that are scored on the same domains, and so can be compared."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, candidate in candidates.items():
        groups.setdefault(candidate.domains, []).append(number)
    return list(groups.values())


def along_scale(candidates: Mapping[int, Candidate]) -> list[list[int]]:
    """Candidates that differ in their scale alone, each group by rising scale; those of methods without one in groups of one."""
    groups: dict[str, list[int]] = {}
    for number, candidate in candidates.items():
        own = "" if SCALE in candidate.recipe else f"\0{number}"
        groups.setdefault(repr((sorted(candidate.parameters.items()), candidate.domains)) + own, []).append(number)
    return [sorted(numbers, key=lambda number: candidates[number].scale) for numbers in groups.values()]


def spread(candidates: Mapping[int, Candidate]) -> list[int]:
    """An order in which every beginning covers the grid: each next candidate is the one farthest from all before it.

    The first is the middle of the grid. Distances are in steps of the grid, each axis scaled to length 1. Candidates of different
    domains take turns.
    """
    orders = [_spread(numbers, candidates) for numbers in by_domains(candidates)]
    return [number for turn in itertools.zip_longest(*orders) for number in turn if number is not None]


def _spread(numbers: Sequence[int], candidates: Mapping[int, Candidate]) -> list[int]:
    recipes = [{name: repr(value) for name, value in candidates[number].recipe.items()} for number in numbers]
    axes = {name: list(dict.fromkeys(recipe[name] for recipe in recipes)) for name in recipes[0]}
    points = [[axes[name].index(recipe[name]) / max(1, len(axes[name]) - 1) for name in axes] for recipe in recipes]
    left = list(range(len(numbers)))
    chosen: list[int] = []
    while left:
        reach = partial(_distance, points, chosen) if chosen else partial(_from_middle, points)
        nearest = max(left, key=lambda place: (round(reach(place), 9), -place))
        left.remove(nearest)
        chosen.append(nearest)
    return [numbers[place] for place in chosen]


def _distance(points: Sequence[Sequence[float]], chosen: Sequence[int], place: int) -> float:
    return min(math.dist(points[place], points[other]) for other in chosen)


def _from_middle(points: Sequence[Sequence[float]], place: int) -> float:
    return -math.dist(points[place], [0.5] * len(points[place]))
