"""Resampled scores carried through the normalisation to domains, to the whole and to the mean over bases.

A draw of the bootstrap gives every model a score on the same resampled items; normalising the draws as the scores are normalised
(`normalise`) carries the noise of the specialist and of the base along, with its correlation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from mergebench.analysis.normalise import FLOOR, LEFT_OUT, USED

LEVEL = 0.95
ALL_BASES, ALL_DOMAINS = "Overall", "all"
COLUMNS = ["base", "model", "domain", "value", "low", "high", "standard_error"]


class Where(NamedTuple):
    """What a mean is over: a base or `ALL_BASES`, a model, a domain or `ALL_DOMAINS`."""

    base: str
    model: str
    domain: str


Draws = dict[Where, np.ndarray]
"""Percent, float64 (1 + resamples,): the value on the items as they are, then that of every draw (NaN where it is not known)."""


def carry(cells: pd.DataFrame, scores: Mapping[tuple[str, str, str], np.ndarray], resamples: int) -> Draws:
    """Normalise every draw, and average over the benchmarks of a domain, over domains, and over bases.

    share = 1 + (model - reference) / max(reference - anchor, FLOOR): as in `normalise`, but that a draw whose reference is closer to
    the anchor than any benchmark that counts may be does not blow the share up. Which benchmarks count is decided once, by
    the scores as they are.

    Args:
        cells: of `normalise`, of one measure.
        scores: resampled scores of base, model and benchmark.
        resamples: length of each.

    Returns:
        Draws of every base and model for each domain that counts and for `ALL_DOMAINS`, and of every model for `ALL_BASES`.
        A missing part makes the mean NaN, never a mean over fewer.
    """
    bases, models = cells["base"].unique(), cells["model"].unique()
    cells = cells[cells["state"] != LEFT_OUT].reset_index(drop=True)
    shares = np.full((len(cells), 1 + resamples), np.nan)
    used = cells["state"].to_numpy() == USED
    shares[:, 0] = cells["share"]
    unknown = np.full(resamples, np.nan)
    for row in cells[used].itertuples():
        value = scores.get((row.base, row.model, row.benchmark), unknown)
        high = scores.get((row.base, row.reference, row.benchmark), unknown)
        low = scores.get((row.base, row.anchor, row.benchmark), unknown) if row.anchor else np.zeros(resamples)
        if row.model == row.anchor:
            shares[row.Index, 1:] = np.where(np.isnan(value + high), np.nan, 0.0)
        else:
            shares[row.Index, 1:] = 1 + (value - high) / np.maximum(high - low, FLOOR)
    draws: Draws = {}
    for (base, model), mine in cells.groupby(["base", "model"], sort=False):
        domains = {name: 100 * shares[rows.index].mean(axis=0) for name, rows in mine.groupby("domain", sort=False)}
        draws |= {Where(base, model, name): mean for name, mean in domains.items()}
        draws[Where(base, model, ALL_DOMAINS)] = np.mean(list(domains.values()), axis=0)
    nothing = np.full(1 + resamples, np.nan)
    for model in models:
        each = [draws.get(Where(base, model, ALL_DOMAINS), nothing) for base in bases]
        draws[Where(ALL_BASES, model, ALL_DOMAINS)] = np.mean(each, axis=0)
    return draws


def intervals(draws: Draws) -> pd.DataFrame:
    """Percentile interval (`LEVEL`) and standard deviation of every value.

    Returns:
        Frame with `COLUMNS`, one row for each key of `draws`; NaN where there are no draws.
    """
    tails = [50 * (1 - LEVEL), 100 - 50 * (1 - LEVEL)]
    rows = [(*where, each[0], *np.percentile(each[1:], tails), each[1:].std(ddof=1)) for where, each in draws.items()]
    return pd.DataFrame(rows, columns=COLUMNS)
