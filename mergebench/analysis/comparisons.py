"""Paired tests between methods on the same items, corrected for their number, and the methods that the best is not separable from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mergebench.analysis.distributions import student_two_sided
from mergebench.analysis.uncertainty import LEVEL

ALPHA = 1 - LEVEL
SAME = 1e-9
COLUMNS = ["better", "worse", "difference", "low", "high", "p", "p_holm"]


class Difference(NamedTuple):
    """A paired difference: its value, its percentile interval at `LEVEL`, and its p-value, both uncorrected; NaN without draws."""

    value: float
    low: float
    high: float
    p: float


def difference(one: np.ndarray, other: np.ndarray, disagreements: float = math.inf) -> Difference:
    """Test `one - other`, each the value and then its draws (`uncertainty.Draws`) on the same resamples.

    t = difference / deviation of the difference's draws is referred to Student's distribution with m - 1 degrees of freedom, m the number
    of clusters of items on which the two differ, and p is at least 2^(1 - m) (`disagreement`). A share of draws beyond zero would not
    do: it could not be smaller than one in their number, which a correction for many pairs would use up; and where few items differ, no
    draw may turn the difference round although chance easily does. What is smaller than the rounding of sums (`SAME`) is exactly zero.

    Args:
        one, other: float64 (1 + resamples,), in percent.
        disagreements: m; the normal distribution without it.
    """
    both = one - other
    both = np.where(np.abs(both) < SAME, 0.0, both)
    if not np.isfinite(both).all():
        return Difference(float(both[0]), np.nan, np.nan, np.nan)
    low, high = np.percentile(both[1:], [50 * ALPHA, 100 - 50 * ALPHA])
    return Difference(float(both[0]), float(low), float(high), _p(float(both[0]), float(both[1:].std(ddof=1)), disagreements))


def compare(draws: Mapping[str, np.ndarray], disagreements: Mapping[frozenset[str], int] | None = None) -> pd.DataFrame:
    """Test every pair of methods.

    Both methods of a pair are resampled on the same items, so that the standard deviation of the difference's draws is that of a
    paired comparison (`difference`). All pairs are one family of Holm's correction, because it is the data that say which method is
    the best.

    Args:
        draws: by method, the value and then its draws (`uncertainty.Draws`); methods without known draws are left out.
        disagreements: number of clusters on which each pair differs; see `difference`.

    Returns:
        Frame with `COLUMNS`: differences in percentage points with percentile intervals, not corrected, of a pair's draws.
    """
    known = {method: each for method, each in draws.items() if np.isfinite(each).all()}
    rows = []
    for one, other in itertools.combinations(known, 2):
        better, worse = (one, other) if known[one][0] >= known[other][0] else (other, one)
        count = math.inf if disagreements is None else disagreements[frozenset((one, other))]
        rows.append((better, worse, *difference(known[better], known[worse], count)))
    frame = pd.DataFrame(rows, columns=COLUMNS[:-1])
    return frame.assign(p_holm=holm(frame["p"].tolist()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given. Holm 1979, Scandinavian Journal of Statistics 6."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def best(draws: Mapping[str, np.ndarray]) -> str | None:
    """The method with the highest value among those with known draws; None without any."""
    known = {method: each[0] for method, each in draws.items() if np.isfinite(each).all()}
    return max(known, key=lambda method: known[method]) if known else None


def best_group(draws: Mapping[str, np.ndarray], pairs: pd.DataFrame) -> tuple[str, ...]:
    """The best method and those that are not separable from it at `ALPHA`, in the order given."""
    top = best(draws)
    against = pairs[pairs["better"] == top].set_index("worse")["p_holm"]
    inside = {top, *against.index[against >= ALPHA]}
    return tuple(method for method in draws if method in inside)


def _p(difference: float, deviation: float, disagreements: float) -> float:
    if abs(difference) < SAME or disagreements < 2:
        return 1.0
    least = 2.0 ** (1 - disagreements)
    return max(least, student_two_sided(difference / deviation, disagreements - 1)) if deviation > SAME else least
