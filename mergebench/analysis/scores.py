"""Score records as one tidy table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from mergebench.analysis.labels import BASE, MERGED_PREFIX, MULTITASK, SPECIALIST_PREFIX
from mergebench.analysis.records import Record
from mergebench.analysis.scope import ROLES, Scope
from mergebench.errors import MergebenchError

KEYS = ["base", "model", "benchmark"]
COLUMNS = [
    "base",
    "model",
    "kind",
    "method",
    "specialist_of",
    "benchmark",
    "role",
    "domain",
    "metric",
    "value",
    "standard_error",
    "n",
]


def read_scores(paths: Iterable[Path]) -> pd.DataFrame:
    """Read `scores/<base>/<model>/<benchmark>.json` records, one row each, sorted by base, model, benchmark.

    Columns: base, model, kind (base | specialist | multitask | merged), method (slug, or "" unless merged),
    specialist_of (domain, or ""), benchmark, role, domain, metric, value (float64 in [0, 1], higher is better),
    standard_error (float64, NaN where the metric has none), n (int64, scored items).

    Raises:
        MergebenchError: a record is malformed, lies in another model's folder, or occurs twice.
    """
    rows = [_row(Path(path)) for path in paths]
    frame = pd.DataFrame(rows, columns=COLUMNS).astype({"value": float, "standard_error": float, "n": int})
    twice = frame[frame.duplicated(KEYS)]
    if len(twice):
        first = twice.iloc[0]
        raise MergebenchError(f"The score of {first.base}/{first.model} on '{first.benchmark}' was given twice; pass each record once.")
    return frame.sort_values(KEYS, ignore_index=True)


def select(scores: pd.DataFrame, scope: Scope) -> pd.DataFrame:
    """Keep the scores that the tables of a campaign show.

    A results folder may hold others: specialists' surrogate scores, which tuning uses, and those of methods, bases or benchmarks
    that the configuration no longer has.

    Raises:
        MergebenchError: a score's role or domain is not the one that the campaign gives its benchmark.
    """
    listed = {benchmark.name: benchmark for benchmark in scope.benchmarks}
    ours = scores["base"].isin(scope.bases) & scores["model"].isin(scope.scored) & scores["benchmark"].isin(list(listed))
    kept = scores[ours].reset_index(drop=True)
    for key in ("role", "domain"):
        expected = kept["benchmark"].map({name: getattr(benchmark, key) for name, benchmark in listed.items()})
        for row in kept[kept[key] != expected].itertuples():
            raise MergebenchError(
                f"scores/{row.base}/{row.model}/{row.benchmark}.json has {key} '{getattr(row, key)}', but the campaign's "
                f"'{row.benchmark}' has '{expected[row.Index]}'; delete the record so that it is made again."
            )
    return kept


def _row(path: Path) -> dict[str, object]:
    record = Record(path)
    base, model, benchmark = record.text("base"), record.text("model"), record.text("benchmark")
    for key, place in (("benchmark", path.stem), ("model", path.parent.name), ("base", path.parent.parent.name)):
        if record.text(key) != place:
            raise record.wrong(key, f"'{place}', as the path says")
    if record.text("role") not in ROLES:
        raise record.wrong("role", " or ".join(ROLES))
    if record.content.get("higher_is_better", True) is not True:
        raise record.wrong("higher_is_better", "true: scores are converted before they are written")
    kind = _kind(model)
    if kind is None:
        raise record.wrong("model", "base, specialist_<domain>, multitask or merged_<method>")
    return {
        "base": base,
        "model": model,
        "kind": kind,
        "method": model.removeprefix(MERGED_PREFIX) if kind == "merged" else "",
        "specialist_of": model.removeprefix(SPECIALIST_PREFIX) if kind == "specialist" else "",
        "benchmark": benchmark,
        "role": record.text("role"),
        "domain": record.text("domain"),
        "metric": record.text("metric"),
        "value": record.number("value", 0.0, 1.0),
        "standard_error": record.number("standard_error", 0.0) if "standard_error" in record else np.nan,
        "n": int(record.number("n", 1)),
    }


def _kind(model: str) -> str | None:
    if model in (BASE, MULTITASK):
        return model
    if model.startswith(SPECIALIST_PREFIX):
        return "specialist"
    return "merged" if model.startswith(MERGED_PREFIX) else None
