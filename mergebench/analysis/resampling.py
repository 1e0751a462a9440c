"""Scores on resampled items: one bootstrap, the same for all models of all bases, so that their differences are paired.

Clusters of items (`items`) are drawn with replacement, as many as there are in each stratum; a score is computed from the drawn
ones as evaluation computes it from all. Every draw of a benchmark has a generator of its own, seeded by the benchmark's name and the
number of the draw: nothing depends on the order of rows, on other benchmarks, or on how draws are cut into blocks.

Efron and Tibshirani 1993, *An Introduction to the Bootstrap*, chapters 6 and 13.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from mergebench.analysis.disagreement import Disagreements, within_bases
from mergebench.analysis.items import BEST_F1, SMOOTHING, Model, Outcomes, Part, Ranked, read_outcomes
from mergebench.analysis.scope import Scope
from mergebench.errors import MergebenchError

RESAMPLES = 2000
SEED = 20250521
_BLOCK = 100
TOLERANCE = 1e-6


class Resamples(NamedTuple):
    """What is known of a campaign from its items.

    Attributes:
        scores: on resampled items, float64 (resamples,) by base, model and benchmark; nothing for a score without its items.
        disagreements: on how many clusters every two methods of a base differ.
    """

    scores: dict[tuple[str, str, str], np.ndarray]
    disagreements: Disagreements


def weights(benchmark: str, strata: np.ndarray, draws: Iterable[int]) -> np.ndarray:
    """How often each cluster is drawn: float64 of shape (draws, clusters).

    Args:
        benchmark: name, which seeds the draws.
        strata: int64 (clusters,); clusters of equal number are drawn for each other.
        draws: numbers of the draws.
    """
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    name = int.from_bytes(hashlib.sha256(benchmark.encode()).digest()[:8], "little")
    numbers = list(draws)
    drawn = np.zeros((len(numbers), len(strata)))
    for row, draw in enumerate(numbers):
        generator = np.random.default_rng([SEED, name, draw])
        for inside in members:
            drawn[row, inside] = np.bincount(generator.integers(0, len(inside), len(inside)), minlength=len(inside))
    return drawn


def resampled_scores(
    table: pd.DataFrame,
    scope: Scope,
    files: Mapping[tuple[str, str, str], Path],
    resamples: int = RESAMPLES,
    progress: Callable[[int, int], None] | None = None,
) -> Resamples:
    """Resample every score that has its items, one benchmark after another.

    Args:
        table: scores as of `scores.select`.
        scope: says how each benchmark's outcomes become a score.
        files: item files by base, model and benchmark; those of scores that the table lacks are not read.
        resamples: how many times.
        progress: told how many bytes of how many have been read and resampled.

    Raises:
        MergebenchError: items do not give the value of their record.
    """
    values = table.set_index(["base", "model", "benchmark"])["value"]
    found = Resamples({}, {})
    known = {key: path for key, path in files.items() if key in values.index}
    done, total = 0, sum(path.stat().st_size for path in known.values()) if progress else 0
    for benchmark in scope.benchmarks:
        mine = {(b, m): path for (b, m, name), path in known.items() if name == benchmark.name}
        if not mine:
            continue
        outcomes = read_outcomes(benchmark.name, benchmark.aggregate, mine)
        check(outcomes, mine, {model: float(values[(*model, benchmark.name)]) for model in mine})
        for model, draws in zip(outcomes.models, replicate(outcomes, resamples), strict=True):
            found.scores[(*model, benchmark.name)] = draws
        found.disagreements.update(within_bases(outcomes, scope))
        if progress:
            done += sum(path.stat().st_size for path in mine.values())
            progress(done, total)
    return found


def check(outcomes: Outcomes, files: Mapping[Model, Path], recorded: Mapping[Model, float]) -> None:
    """Make sure that items give the scores that are recorded beside them.

    Args:
        outcomes: all items of one benchmark.
        files: where they come from.
        recorded: value of each model's record.

    Raises:
        MergebenchError: they do not.
    """
    for model, value in zip(outcomes.models, point(outcomes), strict=True):
        if not abs(value - recorded[model]) <= TOLERANCE:
            raise MergebenchError(
                f"{files[model]} gives a score of {value:.6f}, but the record beside it says {recorded[model]:.6f}; delete both so that "
                "they are made again."
            )


def point(outcomes: Outcomes) -> np.ndarray:
    """Every model's score on the items as they are: float64 (models,)."""
    return scores(outcomes, np.ones((1, len(outcomes.strata))))[0]


def replicate(outcomes: Outcomes, resamples: int = RESAMPLES, block: int = _BLOCK) -> np.ndarray:
    """Every model's score on resampled items.

    Args:
        outcomes: of one benchmark.
        resamples: how many times.
        block: draws that are computed together; bounds the memory, changes nothing else.

    Returns:
        float64 of shape (models, resamples) in [0, 1]. NaN for a benchmark of fewer than two clusters, which cannot be resampled.
    """
    found = np.full((len(outcomes.models), resamples), np.nan)
    if len(outcomes.strata) > 1:
        for start in range(0, resamples, block):
            draws = range(start, min(start + block, resamples))
            found[:, start : draws.stop] = scores(outcomes, weights(outcomes.benchmark, outcomes.strata, draws)).T
    return found


def scores(outcomes: Outcomes, drawn: np.ndarray) -> np.ndarray:
    """Every model's score with its clusters weighted: float64 of shape (draws, models); NaN without a scored item."""
    if outcomes.aggregate == BEST_F1:
        return np.stack([_best_f1(each, drawn) for each in outcomes.ranked], axis=1)
    if outcomes.aggregate in SMOOTHING:
        (part,) = outcomes.parts
        flat = drawn[:, part.clusters] @ part.sums.reshape(len(part.clusters), -1)
        return bleu(flat.reshape(len(drawn), *part.sums.shape[1:]), SMOOTHING[outcomes.aggregate])
    means = np.stack([_means(part, drawn, len(outcomes.models)) for part in outcomes.parts])
    has_group = np.stack([np.broadcast_to(part.counts.sum(axis=0) > 0, means.shape[2:]) for part in outcomes.parts])
    with np.errstate(invalid="ignore"):
        return np.where(has_group[:, None], means, 0.0).sum(axis=0) / has_group.sum(axis=0)


def bleu(summed: np.ndarray, smooth: str) -> np.ndarray:
    """`evaluation.bleu.score` for an array (..., 10) of summed counts."""
    hypothesis, reference, matches, totals = summed[..., 0], summed[..., 1], summed[..., 2:6], summed[..., 6:10]
    with np.errstate(divide="ignore", invalid="ignore"):
        if smooth == "add-one":
            precision = (matches + 1) / (totals + 1)
            nothing = hypothesis == 0
        else:
            precision = np.where(matches > 0, matches, 0.5 ** np.cumsum(matches == 0, axis=-1)) / totals
            nothing = (hypothesis == 0) | (matches[..., 0] == 0) | (totals == 0).any(axis=-1)
        brevity = np.where(hypothesis > reference, 1.0, np.exp(1 - reference / hypothesis))
        value = np.minimum(1.0, brevity * np.exp(np.log(precision).mean(axis=-1)))
    return np.where(nothing, 0.0, value)


def _means(part: Part, drawn: np.ndarray, models: int) -> np.ndarray:
    mine = drawn[:, part.clusters]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.broadcast_to((mine @ part.sums) / (mine @ part.counts), (len(drawn), models))


def _best_f1(items: Ranked, drawn: np.ndarray) -> np.ndarray:
    """The best threshold is searched anew in every draw, as it is in the score itself."""
    mine = drawn[:, items.clusters]
    with np.errstate(divide="ignore", invalid="ignore"):
        best = np.maximum(0.0, np.cumsum(mine * items.gain, axis=1).max(axis=1, initial=0.0))
        return (mine @ items.silence + best) / mine.sum(axis=1)
