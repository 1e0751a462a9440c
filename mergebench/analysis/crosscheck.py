"""Reproduced cells of Tables 7 and 8 against the published ones."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from mergebench.analysis.published import OVERALL, published_names, published_table

AGREEING, WITHIN_NOISE, OFF, MISSING = "agreeing", "within noise", "off", "missing"
AGREEMENT = 1.0
"""Percentage points within which two values agree, whatever their noise."""

_Z = 1.959964
COLUMNS = ["table", "base", "method", "published", "here", "difference", "low", "high", "verdict"]
_TABLES = {"performance": 7, "retention": 8}


def crosscheck(here: Mapping[str, pd.DataFrame], errors: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Compare every published cell of the bases that are in a campaign.

    The published value has noise of its own: it was measured on as many items, so its standard error is taken to be that of
    the reproduced value, and the interval of the difference (95 %) is sqrt(2) times as wide as that of one value. It does not
    hold what training anew changes.

    Args:
        here: percent by measure (`performance`, `retention`): bases (as the catalogue names them, and "Overall") x methods.
        errors: standard errors of the same shape, NaN where unknown.

    Returns:
        Frame with `COLUMNS`, in the order of the published tables; "Overall" where all of the paper's bases are there. Verdict:
        agreeing (within `AGREEMENT`), within noise (the interval holds zero), off, or missing.
    """
    rows = []
    names = published_names()
    for measure, number in _TABLES.items():
        ours, error = here[measure], errors[measure]
        bases = [slug for slug in names if slug in ours.index]
        overall = [OVERALL] if len(bases) == len(names) == len(ours.index.drop(OVERALL, errors="ignore")) else []
        for base in [*bases, *overall]:
            for method, value in published_table(number).loc[names.get(base, base)].items():
                found = ours[method].get(base, math.nan) if method in ours else math.nan
                spread = _Z * math.sqrt(2) * (error[method].get(base, math.nan) if method in error else math.nan)
                difference = found - value
                rows.append(
                    (number, base, method, value, found, difference, difference - spread, difference + spread, _verdict(difference, spread))
                )
    return pd.DataFrame(rows, columns=COLUMNS)


def _verdict(difference: float, spread: float) -> str:
    if math.isnan(difference):
        return MISSING
    if abs(difference) <= AGREEMENT:
        return AGREEING
    return WITHIN_NOISE if abs(difference) <= spread else OFF
