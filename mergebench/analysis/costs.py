"""What each method cost: seconds of the algorithm and of validation, peak memory, candidates (paper section 4.3)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from mergebench.analysis.labels import MERGED_PREFIX
from mergebench.analysis.records import Record
from mergebench.analysis.scope import Scope

SPECTRUM = "spectrum"
USED = ["wall_seconds", "cpu_seconds", "gpu_seconds", "gpu_peak_bytes", "gpu_joules", "cpu_joules", "earlier_attempts"]
COST_COLUMNS = ["stage", "base", "method", "kind", "domain", "algorithm", "validation", "peak_rss_bytes", *USED]
SEARCH_COLUMNS = ["base", "method", "candidates"]
MEASURES = ["algorithm_seconds", "validation_seconds", "peak_memory_mib", "candidates"]


def read_costs(paths: Iterable[Path]) -> pd.DataFrame:
    """Read the cost records of the stages that a method is charged for: `vectors`, `statistics`, `tune` and `merge`.

    Other stages (training, evaluation) are skipped: they cost the same whichever method is used. A record's `timing` says
    how its seconds split. One that times neither part counts as a whole, without loading models: as validation for `tune`,
    else as algorithm.

    The kind of statistics is the file's name: `costs/statistics/<base>/<domain>/<kind>.json`; the spectrum that the
    `vectors` stage measures counts as one more kind. A merge is known by its model: those of further seeds are not their method's.

    Returns:
        Frame with columns stage, base, method, kind ("" unless statistics), domain, algorithm and validation (seconds),
        peak_rss_bytes, and `USED`: what the job has used in all, NaN where the record does not say. Seconds of the wall and of GPUs
        hold those of earlier attempts, whose work a job mostly goes on from; joules of CPU packages are those of jobs that
        had the whole node.

    Raises:
        MergebenchError: a record is malformed.
    """
    rows = []
    for path in paths:
        record = Record(Path(path))
        stage = record.text("stage")
        if stage not in ("vectors", "statistics", "tune", "merge"):
            continue
        timing = record.mapping("timing")
        parts = {name: _seconds(record, timing, name) for name in ("algorithm", "validation")}
        if not timing.keys() & parts.keys():
            working = record.number("wall_seconds", 0.0) - _seconds(record, timing, "load")
            parts["validation" if stage == "tune" else "algorithm"] = max(working, 0.0)
        statistics = stage in ("vectors", "statistics")
        model = stage == "merge" and "model" in record
        rows.append(
            {
                "stage": "statistics" if statistics else stage,
                "base": record.text("base"),
                "method": "" if statistics else record.text("model").removeprefix(MERGED_PREFIX) if model else record.text("method"),
                "kind": SPECTRUM if stage == "vectors" else record.path.stem if statistics else "",
                "domain": record.text("domain") if statistics else "",
                **parts,
                "peak_rss_bytes": record.number("peak_rss_bytes", 0.0),
                **_used(record),
            }
        )
    return pd.DataFrame(rows, columns=COST_COLUMNS).astype(dict.fromkeys(("algorithm", "validation", *USED), float))


def read_searches(paths: Iterable[Path]) -> pd.DataFrame:
    """Count the candidates in `tuning/<base>/<method>/search.parquet` logs.

    Returns:
        Frame with columns base, method (from the path) and candidates.
    """
    rows = []
    for path in map(Path, paths):
        tried = pd.read_parquet(path, columns=["candidate", "stage"]).drop_duplicates()
        rows.append((path.parent.parent.name, path.parent.name, len(tried)))
    return pd.DataFrame(rows, columns=SEARCH_COLUMNS)


def method_costs(costs: pd.DataFrame, searches: pd.DataFrame, scope: Scope) -> pd.DataFrame:
    """Charge each method of each base with its own jobs.

    Algorithm seconds are those of its merge job, its tune job and the statistics jobs of all domains that it reads
    (`scope.statistics`); validation seconds are those of its tune job. Peak memory is the highest of these jobs.
    A job whose record is not there makes what it would add to NaN, never zero; a method without a grid (not in
    `scope.tuned`) has no tune job, so zero validation seconds and zero candidates.

    Returns:
        Frame indexed by (base, method) with columns `MEASURES` (float64, NaN where unknown).
    """
    index = pd.MultiIndex.from_product([scope.bases, scope.methods], names=["base", "method"])
    counted = searches.set_index(["base", "method"])["candidates"].reindex(index)
    rows = []
    for base, method in index:
        jobs, complete = jobs_of(costs, scope, base, method)
        tune = jobs[jobs["stage"] == "tune"]
        tuned = method in scope.tuned
        searched = len(tune) > 0 or not tuned
        rows.append(
            {
                "algorithm_seconds": jobs["algorithm"].sum() if complete else np.nan,
                "validation_seconds": tune["validation"].sum() if searched else np.nan,
                "peak_memory_mib": jobs["peak_rss_bytes"].max() / 2**20 if complete else np.nan,
                "candidates": counted[base, method] if tuned else 0,
            }
        )
    return pd.DataFrame(rows, index=index, columns=MEASURES).astype(float)


def jobs_of(costs: pd.DataFrame, scope: Scope, base: str, method: str) -> tuple[pd.DataFrame, bool]:
    """The jobs that a method is charged with on one base: rows of `costs`, and whether all of them are there."""
    mine = costs[costs["base"] == base]
    merge = mine[(mine["stage"] == "merge") & (mine["method"] == method)]
    tune = mine[(mine["stage"] == "tune") & (mine["method"] == method)]
    kinds = scope.statistics.get(method, ())
    statistics = mine[(mine["stage"] == "statistics") & mine["kind"].isin(kinds) & mine["domain"].isin(scope.domains)]
    searched = len(tune) > 0 or method not in scope.tuned
    complete = len(merge) > 0 and searched and len(statistics) == len(kinds) * len(scope.domains)
    return pd.concat([merge, tune, statistics]), complete


def _used(record: Record) -> dict[str, float]:
    """`USED` of one job; NaN for what records of older runs, and of one of several searches in a job, lack."""
    attempts, energy = (record.mapping(name) if name in record else {} for name in ("attempts", "energy_joules"))
    held = _optional(record, "gpu_seconds")
    return {
        "wall_seconds": _optional(record, "wall_seconds") + _of(record, "attempts", attempts.get("wall_seconds", 0.0)),
        "cpu_seconds": _optional(record, "cpu_seconds"),
        "gpu_seconds": held + _of(record, "attempts", attempts.get("gpu_seconds", 0.0)),
        # Of GPUs that another process has computed on, as an engine's, nothing is known.
        "gpu_peak_bytes": 0.0 if held == 0 else _optional(record, "gpu_peak_bytes") or np.nan,
        "gpu_joules": 0.0 if held == 0 else _of(record, "energy_joules", energy.get("gpu")),
        "cpu_joules": _of(record, "energy_joules", energy.get("cpu_package")) if energy.get("whole_node") else np.nan,
        "earlier_attempts": _of(record, "attempts", attempts.get("failed", 0.0)),
    }


def _optional(record: Record, key: str) -> float:
    return record.number(key, 0.0) if key in record else np.nan


def _of(record: Record, key: str, value: object) -> float:
    """A number inside a part of a record; NaN for null."""
    if value is None:
        return np.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < np.inf:
        raise record.wrong(key, "finite numbers that are not negative")
    return float(value)


def _seconds(record: Record, timing: dict[str, object], name: str) -> float:
    """Seconds that a record gives to one part; zero for a part that this job did not have."""
    seconds = timing.get(name, 0.0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < np.inf:
        raise record.wrong("timing", f"a finite number of seconds under '{name}'")
    return float(seconds)
