"""The paper's practical guideline, computed: which methods are not significantly worse than the best of those that a situation allows.

A situation is what one has (training data, validation data, memory, time) and what one tolerates (forgetting). Methods that need more
are left out first; then the others are compared with the best of them. The paper's own guideline (section 4.4): Model Soup;
with validation data Dataless Localize-and-Stitch or Task Arithmetic; with training data Localize-and-Stitch or RegMean.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from mergebench.analysis.comparisons import ALPHA, holm
from mergebench.analysis.labels import title
from mergebench.analysis.ranks import friedman
from mergebench.analysis.spending import NOTHING, TRAINING, VALIDATION

ALONE = "nothing else is possible"
PAPER = {
    frozenset[str](): ("model_soup",),
    frozenset({VALIDATION}): ("dataless_localize_and_stitch", "task_arithmetic"),
    frozenset({TRAINING}): ("localize_and_stitch", "regmean"),
    frozenset({TRAINING, VALIDATION}): ("localize_and_stitch", "regmean"),
}
"""What section 4.4 of the paper recommends to who has these data. It does not say that RegMean is tuned, which takes validation data."""
_ARTICLES = {TRAINING: "training data", VALIDATION: "validation data"}


@dataclass(frozen=True)
class Choice:
    """A method with what one must know to choose it; NaN where something is not known.

    Attributes:
        needs: "nothing", "training", "validation" or "training and validation" (data).
        performance, retention: percent.
        memory_gib: peak of the GPUs where the campaign used any, else resident memory.
        gpu_hours, hours: of GPUs, and of all jobs.
        price: in the site's currency.
    """

    method: str
    needs: str
    performance: float
    retention: float = math.nan
    memory_gib: float = math.nan
    gpu_hours: float = math.nan
    hours: float = math.nan
    price: float = math.nan

    @property
    def needed(self) -> frozenset[str]:
        """The kinds of data in `needs`."""
        return frozenset(self.needs.split(" and ")) - {NOTHING}


@dataclass(frozen=True)
class Situation:
    """What somebody has; None for no limit. `forgetting` is the share of the base's general abilities that may be lost, in percent."""

    data: frozenset[str]
    memory_gib: float | None = None
    gpu_hours: float | None = None
    hours: float | None = None
    forgetting: float | None = None

    def obstacle(self, choice: Choice) -> str | None:
        """Why a method is not possible here; None if it is. What is not known about a method is no reason to think that it fits."""
        if lacking := sorted(choice.needed - self.data):
            return f"needs {' and '.join(_ARTICLES[kind] for kind in lacking)}"
        if math.isnan(choice.performance):
            return "its performance is missing"
        limits = (
            (choice.memory_gib, self.memory_gib, "memory", "GiB"),
            (choice.gpu_hours, self.gpu_hours, "GPU time", "GPU-hours"),
            (choice.hours, self.hours, "time", "hours"),
        )
        for needed, most, what, unit in limits:
            if most is not None and math.isnan(needed):
                return f"its {what} is not known"
            if most is not None and needed > most:
                return f"needs {needed:.3g} {unit}"
        if self.forgetting is not None and math.isnan(choice.retention):
            return "its retention is missing"
        if self.forgetting is not None and choice.retention < 100 - self.forgetting:
            return f"forgets {100 - choice.retention:.1f} %"
        return None


@dataclass(frozen=True)
class Comparison:
    """The best of some methods and what is known of the others: `behind` says of those that are significantly worse by how much,
    `open` of those of which it cannot be told why not."""

    best: str
    behind: Mapping[str, str] = field(default_factory=dict)
    open: Mapping[str, str] = field(default_factory=dict)


Test = Callable[[Sequence[Choice]], Comparison]
"""Compares methods with the best of them."""


@dataclass(frozen=True)
class Answer:
    """What is recommended: the best of what is possible, first, and what is not significantly worse; and why the rest is not:
    impossible, significantly worse, or `untested`: nobody can tell."""

    recommended: tuple[str, ...]
    impossible: Mapping[str, str]
    worse: Mapping[str, str]
    untested: Mapping[str, str]


def answer(choices: Sequence[Choice], situation: Situation, test: Test) -> Answer:
    """Recommend methods; the order of `choices` decides nothing but the order among equals."""
    impossible = {choice.method: why for choice in choices if (why := situation.obstacle(choice))}
    possible = sorted((c for c in choices if c.method not in impossible), key=lambda c: -c.performance)
    if not possible:
        return Answer((), impossible, {}, {})
    found = test(possible)
    rest = [c.method for c in possible if c.method not in {found.best, *found.behind, *found.open}]
    return Answer((found.best, *rest), impossible, found.behind, found.open)


def by_items(pairs: Mapping[frozenset[str], float]) -> Test:
    """Compare by paired tests on the same items, with Holm's correction over all pairs of what is possible.

    Args:
        pairs: uncorrected p-value of every pair of methods whose items are known.
    """

    def test(possible: Sequence[Choice]) -> Comparison:
        best = possible[0]
        asked = [frozenset(pair) for pair in itertools.combinations([c.method for c in possible], 2)]
        known = [pair for pair in asked if pair in pairs]
        corrected = dict(zip(known, holm([pairs[pair] for pair in known]), strict=True))
        behind, left_open = {}, {}
        for other in possible[1:]:
            p = corrected.get(frozenset({best.method, other.method}))
            if p is None:
                left_open[other.method] = "without items"
            elif p < ALPHA:
                shown = "< 0.001" if p < 0.001 else f"{p:.3f}"
                behind[other.method] = f"{best.performance - other.performance:.1f} points behind {title(best.method)} (p {shown})"
        return Comparison(best.method, behind, left_open)

    return test


def by_ranks(table: pd.DataFrame) -> Test:
    """Compare by mean ranks over bases: Friedman's test, then Nemenyi's critical difference for the methods that are possible.

    For tables without items, as the paper's. The best is the method with the best mean rank, as that is what is tested.

    Args:
        table: percent, bases x methods.
    """

    def test(possible: Sequence[Choice]) -> Comparison:
        methods = [choice.method for choice in possible]
        result = friedman(table[methods])
        if len(methods) == 1 or result.bases < 2:
            return Comparison(methods[0], {}, dict.fromkeys(methods[1:], "a single base has no ranks to compare"))
        best = min(methods, key=lambda method: result.mean_ranks[method])
        ranked = {method: result.mean_ranks[method] - result.mean_ranks[best] for method in methods}
        apart = result.worse_than(best) if result.significant else []
        behind = {
            method: f"{ranked[method]:.2f} mean ranks behind {title(best)} (critical difference {result.critical_difference:.2f})"
            for method in methods
            if method in apart
        }
        return Comparison(best, behind)

    return test


def agreement(situation: Situation, found: Answer) -> str:
    """Whether the paper's guideline recommends what the data do: "agrees", "agrees in part" or "differs", and where."""
    paper = PAPER[situation.data]
    inside = [method for method in paper if method in found.recommended]
    outside = [method for method in paper if method not in found.recommended]
    if not found.recommended:
        return "n/a"
    reasons = {**found.impossible, **found.worse, **found.untested}
    why = [f"{title(method)}: {reasons.get(method, 'does not take part')}" for method in outside]
    word = "agrees" if not outside else "agrees in part" if inside else "differs"
    return f"{word} ({'; '.join(why)})" if why else word


def data_title(data: frozenset[str]) -> str:
    """What one has, in words."""
    return " and ".join(sorted(data)) or NOTHING
