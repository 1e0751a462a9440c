"""Methods compared across bases by their ranks: Friedman's test and Nemenyi's critical difference.

Demšar 2006, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, section 3.2.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from mergebench.analysis.distributions import chi_square_tail, f_quantile, f_tail, range_quantile

ALPHA = 0.05


@dataclass(frozen=True)
class Friedman:
    """Friedman's test with Iman and Davenport's F, and the difference of mean ranks that separates two methods.

    `mean_ranks`: 1 = best, in the order of the columns; ties share their mean rank. The statistics are NaN, and nothing is
    significant, where fewer than two bases or methods are compared.
    """

    mean_ranks: pd.Series
    bases: int
    chi_square: float
    chi_square_p: float
    f: float
    f_p: float
    f_critical: float
    critical_difference: float

    @property
    def significant(self) -> bool:
        """Whether the methods' ranks differ at `ALPHA` by Iman and Davenport's F."""
        return self.f_p < ALPHA

    def separated(self, one: str, other: str) -> bool:
        """Whether Nemenyi's test tells two methods apart."""
        return bool(abs(self.mean_ranks[one] - self.mean_ranks[other]) > self.critical_difference)

    def worse_than(self, method: str) -> list[str]:
        """Methods that are separated from `method` and rank worse, in the order of the columns."""
        ranks = self.mean_ranks
        return [other for other in ranks.index if ranks[other] > ranks[method] and self.separated(method, other)]

    def cliques(self) -> list[tuple[str, ...]]:
        """Largest groups of methods, best first, within which no two are separated: the bars of a critical-difference plot."""
        ordered = self.mean_ranks.sort_values(kind="stable")
        found: list[tuple[str, ...]] = []
        for start in range(len(ordered)):
            within = ordered.iloc[start:]
            group = tuple(within.index[within - within.iloc[0] <= self.critical_difference])
            if len(group) > 1 and not any(set(group) <= set(other) for other in found):
                found.append(group)
        return found


def ranks(table: pd.DataFrame) -> pd.DataFrame:
    """Rank of every method (column) within its base (row), 1 = highest value; ties share their mean rank."""
    return table.rank(axis="columns", ascending=False, method="average")


def friedman(table: pd.DataFrame) -> Friedman:
    """Test whether methods (columns) differ over bases (rows), which count as independent.

    Rows with a missing value are left out: a rank among fewer methods is no rank among all.
    """
    complete = ranks(table.dropna())
    n, k = complete.shape
    mean = complete.mean()
    if n < 2 or k < 2:
        return Friedman(mean, n, *[math.nan] * 6)
    # The variance of the ranks that are there, which is k (k + 1) / 12 without ties: scipy's correction for ties.
    spread = float(((complete - (k + 1) / 2) ** 2).to_numpy().sum())
    chi_square = (k - 1) * n**2 * float(((mean - (k + 1) / 2) ** 2).sum()) / spread if spread else 0.0
    rest = n * (k - 1) - chi_square
    f = (n - 1) * chi_square / rest if rest > 1e-9 else math.inf
    df = (k - 1, (k - 1) * (n - 1))
    return Friedman(
        mean_ranks=mean,
        bases=n,
        chi_square=chi_square,
        chi_square_p=chi_square_tail(chi_square, k - 1),
        f=f,
        f_p=0.0 if math.isinf(f) else f_tail(f, *df),
        f_critical=f_quantile(ALPHA, *df),
        critical_difference=critical_difference(k, n),
    )


def critical_difference(methods: int, bases: int) -> float:
    """Difference of two mean ranks that is significant at `ALPHA` by Nemenyi's test."""
    return range_quantile(ALPHA, methods) / math.sqrt(2) * math.sqrt(methods * (methods + 1) / (6 * bases))
