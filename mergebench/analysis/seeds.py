"""Several seeds of one method: its score is their mean, and an interval holds how far the seeds are apart.

The mean over seeds, and not the first seed's score, stands in the tables: which seed is drawn first says nothing about a method. The
raw scores of every seed's model are in the table of scores.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from mergebench.analysis.distributions import f_quantile
from mergebench.analysis.labels import MERGED_PREFIX
from mergebench.analysis.normalise import over_bases, performance_cells, recovery_cells, retention_cells, summarise
from mergebench.analysis.scope import Scope
from mergebench.analysis.uncertainty import LEVEL

SEED = 20260213
OVERALL = "Overall"
QUANTILE = 1.959963984540054  # of the normal distribution, for 95 %
MEASURES = {"performance": performance_cells, "retention": retention_cells, "recovery": recovery_cells}


def mean_draws(resampled: Mapping[tuple[str, str, str], np.ndarray], scope: Scope) -> dict[tuple[str, str, str], np.ndarray]:
    """Resampled scores in which a method with several seeds has their mean, moved as far as that mean is uncertain, under its first
    seed's model.

    A draw is sum_k w_k y_k of the n seeds' resampled scores y_k, with w_k = 1 / n + c (g_k - mean g) / sqrt(n (n - 1)), g standard
    normal: around the mean it varies as N(0, (c s)^2 / n), s the seeds' standard deviation. c is Student's quantile for n seeds over the
    normal one, 6.5 for two, 2.2 for three, 1.2 for ten, so that an interval of 95 % covers as often where seeds alone decide. (To resample
    so few seeds would cover half as often with two.) A draw has the same weights on all benchmarks of a base, because it is one model that
    answers them; bases and methods are drawn apart.

    Args:
        resampled: float64 (resamples,) by base, model and benchmark.
        scope: says which models are seeds of one method.

    Returns:
        The same, without the models of further seeds. A method that lacks a seed's items on a benchmark has none there.
    """
    found = {key: draws for key, draws in resampled.items() if key[1] not in scope.other_seeds}
    for first, models in scope.several.items():
        for base, benchmark in dict.fromkeys((b, k) for b, model, k in resampled if model in models):
            each = [resampled.get((base, model, benchmark)) for model in models]
            if any(draws is None for draws in each):
                found.pop((base, first, benchmark), None)
                continue
            stacked = np.stack([draws for draws in each if draws is not None])
            found[base, first, benchmark] = (_weights(base, first, *stacked.shape) * stacked).sum(axis=0)
    return found


def by_seed(scores: pd.DataFrame, scope: Scope) -> pd.DataFrame:
    """Performance, retention and recovery of every seed of a method or control that draws random numbers, in percent.

    Args:
        scores: as of `scores.select`.
        scope: says which models are seeds of one method.

    Returns:
        Frame indexed by (base, method, seed), with a column for each of `MEASURES`; NaN where scores are missing. With several bases also
        `OVERALL`, the mean over bases of each seed.
    """
    apart = scope.apart()
    rows = [(method, seed, model) for method, models in scope.seeds.items() for model, seed in models.items()]
    bases = (*scope.bases, *([OVERALL] if len(scope.bases) > 1 else []))
    index = pd.MultiIndex.from_tuples([(b, method, seed) for b in bases for method, seed, _ in rows], names=["base", "method", "seed"])
    models = pd.MultiIndex.from_tuples([(b, model) for b in bases for *_, model in rows], names=["base", "model"])
    frame = pd.DataFrame(index=index, columns=list(MEASURES), dtype=float)
    if not rows:
        return frame
    for measure, cells_of in MEASURES.items():
        each = summarise(cells_of(scores, apart))
        both = pd.concat([each, pd.concat({OVERALL: over_bases(each)}, names=["base"])])
        frame[measure] = 100 * both["share"].reindex(models).to_numpy()
    return frame


def spread(seeds: pd.DataFrame) -> pd.DataFrame:
    """What the seeds of a method have in common.

    Args:
        seeds: of `by_seed`.

    Returns:
        Frame indexed by (base, method), with columns (measure, statistic): mean, deviation (standard deviation over seeds, n - 1 in the
        denominator; NaN for one seed) and n. A missing seed makes mean and deviation NaN.
    """
    groups = seeds.groupby(["base", "method"], sort=False)
    size = groups.size()
    columns = {}
    for measure in MEASURES:
        complete = groups[measure].count() == size
        columns[measure, "mean"] = groups[measure].mean().where(complete)
        columns[measure, "deviation"] = groups[measure].std(ddof=1).where(complete)
        columns[measure, "n"] = size
    return pd.DataFrame(columns)


def student_factor(seeds: int) -> float:
    """By how much Student's quantile of 97.5 % for so many values is above the normal one."""
    return math.sqrt(f_quantile(1 - LEVEL, 1, seeds - 1)) / QUANTILE


def _weights(base: str, first: str, seeds: int, resamples: int) -> np.ndarray:
    """Of each seed in each draw: (seeds, resamples), columns add up to 1."""
    name = f"{base}\0{first.removeprefix(MERGED_PREFIX)}"
    generator = np.random.default_rng([SEED, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")])
    drawn = generator.standard_normal((seeds, resamples))
    return 1 / seeds + student_factor(seeds) * (drawn - drawn.mean(axis=0)) / math.sqrt(seeds * (seeds - 1))
