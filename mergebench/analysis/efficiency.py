"""What jobs asked the cluster for and what they used, per rule, from their cost records."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mergebench.analysis.records import Record
from mergebench.analysis.scope import Scope

JOB_COLUMNS = [
    "rule",
    "requested_memory_mib",
    "used_memory_mib",
    "requested_minutes",
    "used_minutes",
    "requested_gpus",
    "used_gpus",
    "failed_attempts",
    "lost_minutes",
]
RULE_ORDER = (
    "fetch", "decontaminate", "tokenise", "import", "train", "vectors", "interference", "statistics", "tune", "merge", "evaluate", "judge",
    "settle", "drop",
)  # fmt: skip
MULTITASK, MATHEMATICS, BEFORE_GRPO = "multitask", "specialist_math", "sft_math"


def read_jobs(paths: Iterable[Path], scope: Scope) -> pd.DataFrame:
    """Read the cost record of every job of the campaign but the analysis itself and the report that follows it.

    Returns:
        Frame with columns `JOB_COLUMNS`, one row per job; memory in MiB per node, time in minutes; NaN where a record does
        not say.

    Raises:
        MergebenchError: a record is malformed.
    """
    rows = []
    records = [Record(Path(path)) for path in paths]
    reinforced = {record.content.get("base") for record in records if record.content.get("model") == BEFORE_GRPO}
    for record in records:
        stage = record.text("stage")
        base = record.content.get("base")
        part = "part_of" in record.content  # of a job that has a record of its own
        if stage in ("analyse", "report") or part or (base is not None and base not in scope.bases):
            continue
        requested, run, attempts = (_part(record, name) for name in ("requested", "run", "attempts"))
        rows.append(
            {
                "rule": rule(record, stage, reinforced),
                "requested_memory_mib": _number(requested, "mem_mb"),
                "used_memory_mib": record.number("peak_rss_bytes", 0.0) / 2**20,
                "requested_minutes": _number(requested, "runtime"),
                "used_minutes": record.number("wall_seconds", 0.0) / 60,
                "requested_gpus": _number({"gpu": 0, **requested} if requested else {}, "gpu"),
                "used_gpus": _number(run, "gpus_visible") if record.content.get("gpu_peak_bytes") else 0.0,
                "failed_attempts": _number(attempts, "failed"),
                "lost_minutes": _number(attempts, "wall_seconds") / 60,
            }
        )
    return pd.DataFrame(rows, columns=JOB_COLUMNS)


def rule(record: Record, stage: str, reinforced: set[Any]) -> str:
    """The workflow's rule behind a record; `reinforced` are the bases whose mathematics specialist GRPO has trained."""
    content = record.content
    if stage == "prepare":
        return "fetch_training_data" if str(content.get("dataset")).startswith("train_") else "fetch_data"
    if stage == "train":
        model = content.get("model")
        by_grpo = model == MATHEMATICS and content.get("base") in reinforced
        return "train_grpo" if by_grpo else "train_multitask" if model == MULTITASK else "train_specialist"
    if stage in ("evaluate", "settle"):
        return f"{stage}_{record.path.stem}"
    if stage == "judge":
        return f"judge{record.path.stem.removeprefix('safety')}"
    return {"drop": "drop_weights", "import": "import_specialist"}.get(stage, stage)


def by_rule(jobs: pd.DataFrame) -> pd.DataFrame:
    """Sum the jobs up by rule.

    `requested_*` is the largest request; `*_percent` the mean over jobs of what each used of its own request, in per cent.
    A request of zero (a job without GPUs) has no share.

    Returns:
        Frame with one row per rule, in the order of the data's way; NaN where no record of a rule says.
    """
    rows = []
    for name in sorted(jobs["rule"].unique(), key=_rank):
        mine = jobs[jobs["rule"] == name]
        row: dict[str, Any] = {"rule": name, "jobs": len(mine)}
        for what, unit, share in (("memory", "_mib", "memory"), ("minutes", "", "time"), ("gpus", "", "gpu")):
            asked, used = mine[f"requested_{what}{unit}"].astype(float), mine[f"used_{what}{unit}"].astype(float)
            row |= {
                f"requested_{what}{unit}": asked.max(),
                f"used_{what}{unit}_mean": used.mean(),
                f"used_{what}{unit}_max": used.max(),
                f"{share}_percent": (used / asked.where(asked > 0)).mean() * 100,
            }
        row |= {column: mine[column].astype(float).sum(min_count=1) for column in ("failed_attempts", "lost_minutes")}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else ["rule", "jobs"])


def _rank(name: str) -> tuple[int, str]:
    return next((i for i, start in enumerate(RULE_ORDER) if name.startswith(start)), len(RULE_ORDER)), name


def _part(record: Record, name: str) -> dict[str, Any]:
    """A part that records of older runs lack."""
    return record.mapping(name) if name in record else {}


def _number(part: dict[str, Any], name: str) -> float:
    value = part.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan
