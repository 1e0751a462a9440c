"""From outcomes of items to a value with its standard error and parts.

Means have the standard error of a sample mean; a mean over groups is unweighted and combines theirs; corpus metrics are
bootstrapped over items with a fixed seed. Items whose outcome is NaN are left out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mergebench.evaluation import bleu

RESAMPLES = 200
SEED = 20250521


@dataclass
class Item:
    """One scored row; rows of equal `cluster` ask about the same thing, one without stands for itself."""

    id: str
    group: str
    outcome: float
    response: str
    extra: dict[str, Any] = field(default_factory=dict)
    cluster: str = ""


@dataclass(frozen=True)
class Score:
    """A benchmark's value in [0, 1] (NaN without scorable items), its standard error, item count and parts by group."""

    value: float
    standard_error: float | None
    n: int
    parts: dict[str, float]


def mean_of(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error (None for a single value)."""
    array = np.asarray(values, dtype=np.float64)
    if not array.size:
        return math.nan, None
    error = float(array.std(ddof=1) / math.sqrt(array.size)) if array.size > 1 else None
    return float(array.mean()), error


def _by_group(items: Sequence[Item]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for item in items:
        groups.setdefault(item.group, []).append(item.outcome)
    return groups


def _parts(items: Sequence[Item]) -> dict[str, float]:
    groups = _by_group(items)
    return {name: mean_of(values)[0] for name, values in groups.items()} if set(groups) != {""} else {}


def mean(items: Sequence[Item]) -> Score:
    """Mean over items."""
    value, error = mean_of([item.outcome for item in items])
    return Score(value, error, len(items), _parts(items))


def mean_over_groups(items: Sequence[Item]) -> Score:
    """Unweighted mean of the groups' means, such as languages."""
    scored = {name: mean_of(values) for name, values in _by_group(items).items()}
    errors = [error for _, error in scored.values()]
    total = None if not errors or None in errors else math.sqrt(sum(e * e for e in errors if e is not None)) / len(errors)
    value = float(np.mean([v for v, _ in scored.values()])) if scored else math.nan
    return Score(value, total, len(items), {name: v for name, (v, _) in scored.items()})


def _resampled(n: int) -> np.ndarray:
    """How often each of n items is drawn in each bootstrap sample: int of shape (RESAMPLES, n)."""
    return np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)


def _corpus_bleu(items: Sequence[Item], smooth: Any) -> Score:
    if not items:
        return Score(math.nan, None, 0, {})
    counts = np.array([item.extra["counts"] for item in items])
    value = bleu.score(counts.sum(0), smooth)
    if len(items) == 1:
        return Score(value, None, 1, {})
    draws = [bleu.score(total, smooth) for total in _resampled(len(items)) @ counts]
    return Score(value, float(np.std(draws, ddof=1)), len(items), {})


def corpus_bleu(items: Sequence[Item]) -> Score:
    """sacreBLEU's corpus BLEU / 100."""
    return _corpus_bleu(items, "exp")


def smoothed_bleu(items: Sequence[Item]) -> Score:
    """Corpus BLEU-4 with add-one smoothing."""
    return _corpus_bleu(items, "add-one")


def best_f1(items: Sequence[Item]) -> Score:
    """SQuAD v2's best F1 over thresholds on the probability of "unanswerable".

    Questions are sorted by that probability; the first k are answered, the rest are left empty, and k maximises the sum. An
    item's outcome becomes its score at that k. Rajpurkar et al. 2018, official script ``find_best_thresh``.
    """
    if not items:
        return Score(math.nan, None, 0, {})
    order = np.argsort([item.extra["no_answer_probability"] for item in items], kind="stable")
    ranked = [items[i] for i in order]
    has_answer = np.array([item.extra["answerable"] for item in ranked])
    answered = np.array([item.outcome for item in ranked])
    # Answering a question gains its F1 and, if it has no answer, loses the point for silence.
    gain = np.where(has_answer, answered, np.where([item.response != "" for item in ranked], -1.0, 0.0))
    silent = (~has_answer).astype(float)
    curve = np.concatenate([[0.0], np.cumsum(gain)])
    best = int(curve.argmax())
    for rank, item in enumerate(ranked):
        item.extra["f1"] = item.outcome
        item.outcome = float(silent[rank] + gain[rank]) if rank < best else float(silent[rank])
    value = float((silent.sum() + curve[best]) / len(items))
    parts = {
        name: float(np.mean([i.outcome for i, a in zip(ranked, has_answer, strict=True) if a == kind]))
        for name, kind in (("answerable", True), ("unanswerable", False))
        if (has_answer == kind).any()
    }
    if len(items) == 1:
        return Score(value, None, 1, parts)
    weights = _resampled(len(items))[:, order]
    peaks = np.maximum(0.0, np.cumsum(weights * gain, axis=1).max(axis=1))
    draws = (weights @ silent + peaks) / len(items)
    return Score(value, float(draws.std(ddof=1)), len(items), parts)


AGGREGATES: dict[str, Callable[[Sequence[Item]], Score]] = {
    "mean": mean,
    "mean_over_groups": mean_over_groups,
    "corpus_bleu": corpus_bleu,
    "smoothed_bleu": smoothed_bleu,
    "best_f1": best_f1,
}
