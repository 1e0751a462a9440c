"""What went wrong on the way: attempts that failed before a job succeeded, and jobs that are not done."""

from __future__ import annotations

from typing import Any

from mergebench.analysis.records import Record
from mergebench.report.grids import Grid
from mergebench.report.material import Material

OWN = ("analyse", "report")  # what these jobs cost depends on how often somebody has looked


def failed_attempts(material: Material) -> list[dict[str, Any]]:
    """A row per attempt that ended before its job was done, of jobs that have succeeded since, from their cost records."""
    found = []
    for path in material.paths("costs"):
        record = Record(path).content
        attempts = record.get("attempts")
        if record.get("stage") in OWN or not isinstance(attempts, dict):
            continue
        place = "/".join(path.parts[path.parts.index("costs") + 1 :]).removesuffix(".json")
        for number, end in enumerate(attempts.get("ends") or [], start=1):
            found.append(
                {
                    "job": place,
                    "stage": str(record.get("stage", "")),
                    "attempt": number,
                    "reason": str(end.get("reason", "unknown")),
                    "seconds": end.get("seconds", "n/a"),
                    "gpus": end.get("gpus", "n/a"),
                    "slurm_job": end.get("slurm_job_id") or "n/a",
                }
            )
    return found


def grid(rows: list[dict[str, Any]]) -> Grid:
    """The same as a table."""
    cells = [[str(row[name]) for name in ("job", "attempt", "reason", "seconds", "gpus", "slurm_job")] for row in rows]
    return Grid.of(["Job", "Attempt", "How it ended", "Seconds", "GPUs", "Slurm job"], [list(row) for row in cells])
