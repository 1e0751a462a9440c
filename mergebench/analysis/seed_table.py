"""The table of seeds: how far the seeds of methods and controls that draw random numbers are apart on the benchmarks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from mergebench.analysis.labels import model_of, title
from mergebench.analysis.normalise import missing_targets
from mergebench.analysis.seeds import MEASURES, spread
from mergebench.analysis.tables import NOT_APPLICABLE, Evidence, Table

TITLES = {"performance": "Normalised performance", "retention": "Retention", "recovery": "Recovery"}
SHOWN = ("performance", "retention")
_LISTED = 12


def seeds(evidence: Evidence) -> Table:
    """Every seed's performance, retention and recovery (CSV: a row each), with their mean and standard deviation."""
    each, groups = evidence.seeds, spread(evidence.seeds)
    rows = []
    for (base, method, seed), values in each.iterrows():
        for measure in MEASURES:
            found = groups.loc[(base, method), measure]
            deviation = found["deviation"] if found["n"] > 1 else NOT_APPLICABLE
            rows.append((base, method, measure, found["n"], found["mean"], deviation, seed, values[measure]))
    display = pd.DataFrame({"base": groups.index.get_level_values("base"), "method": map(title, groups.index.get_level_values("method"))})
    display["n"] = groups[SHOWN[0], "n"].to_numpy() if len(groups) else []
    for measure in SHOWN:
        display[TITLES[measure]] = [_mean(*found) for found in groups[measure][["mean", "deviation", "n"]].itertuples(index=False)]
        display[f"{TITLES[measure]}: seeds"] = [_list(mine) for _, mine in each[measure].groupby(["base", "method"], sort=False)]
    return Table(
        "seeds",
        pd.DataFrame(rows, columns=["base", "method", "measure", "n", "mean", "standard_deviation", "seed", "value"]),
        [
            "Rule: the benchmarks' scores of the model merged with each seed, normalised and averaged as in `normalised_performance` and "
            "`forgetting`; ± their standard deviation over n seeds, which is that of one seed and not that of the mean. With one seed "
            "nothing is known of it. All seeds have the parameters that tuning chose, and the same specialists.",
            "Other tables have the mean over the seeds, with the error of that mean in their intervals. More seeds: `tuning.seeds` for "
            "methods, `merging.controls` for controls.",
            *([] if len(rows) else ["No method or control of this campaign draws random numbers."]),
            *_missing(evidence),
        ],
        display=display,
        headings={"base": "Base", "method": "Method", "n": "n"},
        decimals={"n": 0, "seed": 0},
    )


TABLES: dict[str, Callable[[Evidence], Table]] = {"seeds": seeds}


def _missing(evidence: Evidence) -> list[str]:
    models = tuple(model_of(method) for method in evidence.scope.seeds)
    targets = sorted({t for cells in (evidence.performance, evidence.retention) for t in missing_targets(cells, models)})
    more = f" and {len(targets) - _LISTED} more" if len(targets) > _LISTED else ""
    return [f"Missing until these are made: {', '.join(f'`{target}`' for target in targets[:_LISTED])}{more}."] if targets else []


def _mean(mean: float, deviation: float, n: int) -> str:
    if np.isnan(mean):
        return "missing"
    return f"{mean:.1f} ± {deviation:.1f}" if n > 1 else f"{mean:.1f}"


def _list(values: pd.Series) -> str:
    return ", ".join("missing" if np.isnan(value) else f"{value:.1f}" for value in values)
