"""The table of differences: every two methods on the same items."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd

from mergebench.analysis.comparisons import ALPHA
from mergebench.analysis.comparisons import COLUMNS as PAIR_COLUMNS
from mergebench.analysis.cost_table import shown_bases
from mergebench.analysis.labels import title
from mergebench.analysis.pareto_table import missing_scores
from mergebench.analysis.tables import MARK, NOT_APPLICABLE, Evidence, Table, missing_note

_FINE = 8


def differences(evidence: Evidence) -> Table:
    """Every two methods on the same items: by how much one is better, and whether that can be told from nothing."""
    rows = [
        {"measure": measure, "base": base, **pair}
        for measure in ("performance", "retention")
        for base in shown_bases(evidence)
        for pair in evidence.comparisons[measure, base].to_dict("records")
    ]
    frame = pd.DataFrame(rows, columns=["measure", "base", *PAIR_COLUMNS])
    methods = evidence.scope.methods
    display = pd.DataFrame(
        [
            (base, title(row), *(_gap(evidence, base, row, column) for column in methods))
            for base in shown_bases(evidence)
            for row in methods
        ],
        columns=["base", "method", *methods],
    )
    return Table(
        "differences",
        frame,
        [
            "Rule: normalised performance of the row minus that of the column, in points, on the same resampled items. "
            f"{MARK.strip()} not separable from zero at {100 * ALPHA:.0f} % after Holm's correction over all pairs of methods of the base. "
            "n/a: without items. The CSV file has intervals (95 %), p-values and retention as well.",
            *missing_note(missing_scores(evidence)),
        ],
        display=display,
        headings={"base": "Base", "method": "Method", **{method: title(method) for method in methods}},
        decimals={"p": _FINE, "p_holm": _FINE},
        names=2,
    )


TABLES: dict[str, Callable[[Evidence], Table]] = {"differences": differences}


def _gap(evidence: Evidence, base: str, row: str, column: str) -> str:
    if row == column:
        return "-"
    pairs = evidence.comparisons["performance", base]
    found = pairs[pairs["better"].isin([row, column]) & pairs["worse"].isin([row, column])]
    values = evidence.summary["performance"]
    if found.empty:
        return "missing" if math.isnan(values[base, row] - values[base, column]) else NOT_APPLICABLE
    difference = found["difference"].item() * (1 if found["better"].item() == row else -1)
    return f"{round(difference, 1) + 0.0:+.1f}" + (MARK if found["p_holm"].item() >= ALPHA else "")
