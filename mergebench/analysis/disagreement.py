"""On how many clusters of items two models' outcomes differ: how much a paired test has to go by.

Under the hypothesis that two methods are alike, their outcomes on any cluster might as well be swapped. Clusters on which they do not
differ say nothing about that, however many they are, and m clusters on which they do differ can be swapped in 2^m ways, of which one and
its mirror image are as extreme as all of them pointing one way: no such test can have a p-value below 2^(1 - m).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd

from mergebench.analysis.items import BEST_F1, Model, Outcomes, Ranked
from mergebench.analysis.labels import model_of
from mergebench.analysis.normalise import LEFT_OUT
from mergebench.analysis.scope import Scope

Disagreements = dict[tuple[str, str, frozenset[str]], int]
"""Number of clusters by base, benchmark and the two models."""

_SAME = 1e-9


def disagreements(outcomes: Outcomes, pairs: Iterable[tuple[Model, Model]]) -> list[int]:
    """Count the clusters on which each pair's outcomes differ.

    A cluster's outcome is what it adds to the benchmark's score: the sum of its items' outcomes and their number, BLEU's counts, or for
    SQuAD's best F1 the F1 at the model's own best threshold.

    Args:
        outcomes: of one benchmark.
        pairs: of its models.
    """
    column = {model: number for number, model in enumerate(outcomes.models)}
    parts = list(_parts(outcomes))
    found = []
    for one, other in pairs:
        differs = np.zeros(len(outcomes.strata), dtype=bool)
        for clusters, values in parts:
            differs[clusters] |= (np.abs(values[column[one]] - values[column[other]]) > _SAME).any(axis=1)
        found.append(int(differs.sum()))
    return found


def within_bases(outcomes: Outcomes, scope: Scope) -> Disagreements:
    """Count the clusters on which every two methods of a base differ, each seed of a method by itself."""
    compared = {*map(model_of, scope.methods), *scope.other_seeds}
    mine = [model for model in outcomes.models if model[1] in compared]
    pairs = [(one, other) for one, other in itertools.combinations(mine, 2) if one[0] == other[0]]
    counts = disagreements(outcomes, pairs)
    return {(one[0], outcomes.benchmark, frozenset((one[1], other[1]))): n for (one, other), n in zip(pairs, counts, strict=True)}


def between_methods(found: Disagreements, cells: pd.DataFrame, scope: Scope, base: str | None) -> dict[frozenset[str], int]:
    """Add the counts up over the benchmarks that count.

    Args:
        found: of every benchmark.
        cells: of `normalise`, of one measure: which benchmarks count on which base.
        scope: its methods are compared. Of methods with several seeds, those two count that differ most, which is at most as many as
            their means differ on.
        base: None for the sum over bases.

    Returns:
        Number of clusters by the two methods' names.
    """
    counted = cells.loc[cells["state"] != LEFT_OUT, ["base", "benchmark"]].drop_duplicates()
    if base is not None:
        counted = counted[counted["base"] == base]
    where = list(counted.itertuples(index=False, name=None))
    models = {method: scope.several.get(model_of(method), (model_of(method),)) for method in scope.methods}
    sums = {}
    for one, other in itertools.combinations(scope.methods, 2):
        both = [frozenset(pair) for pair in itertools.product(models[one], models[other])]
        sums[frozenset((one, other))] = sum(max(found.get((*place, pair), 0) for pair in both) for place in where)
    return sums


def _parts(outcomes: Outcomes) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Clusters (c,) and what they add to each model's score (models, c, features), model by model in memory."""
    if outcomes.aggregate == BEST_F1:
        each = [_at_best_threshold(ranked, len(outcomes.strata)) for ranked in outcomes.ranked]
        yield np.arange(len(outcomes.strata)), np.stack(each)
    for part in outcomes.parts:
        sums = part.sums.reshape(*part.sums.shape[:2], -1)
        counts = np.broadcast_to(part.counts, sums.shape[:2])[..., None]
        yield part.clusters, np.ascontiguousarray(np.concatenate([sums, counts], axis=2).transpose(1, 0, 2))


def _at_best_threshold(items: Ranked, clusters: int) -> np.ndarray:
    """Sum and number of a model's items in each cluster: (clusters, 2)."""
    best = np.concatenate([[0.0], np.cumsum(items.gain)]).argmax()
    value = items.silence + np.where(np.arange(len(items.gain)) < best, items.gain, 0.0)
    return np.stack([np.bincount(items.clusters, weights, clusters) for weights in (value, np.ones(len(value)))], axis=1)
