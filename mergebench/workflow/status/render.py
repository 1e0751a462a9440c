"""A status as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mergebench.workflow.status.look import STATES, Status

MOST = 10
WIDTH = 160


def as_text(status: Status) -> str:
    """The campaign, its rules, its running jobs and its failures."""
    total = status.total
    count = sum(total.values())
    who = f"{status.controller} runs it" if status.controller else "no workflow is running it"
    lines = [f"{status.results}: {total['done']} of {count} jobs done; {who}"]
    if status.note:
        lines.append(status.note)
    if not any(total[state] for state in STATES if state != "waiting"):
        return "\n".join([*lines, "nothing has been made yet"])
    lines += ["", *_table(status), ""]
    lines.append(f"so far: {duration(status.job_seconds)} of jobs, {_gpu_hours(status.gpu_seconds)}" + _lost(status))
    if total["done"] < count:
        lines.append(f"left:   about {duration(status.rest_seconds)} of jobs, {_gpu_hours(status.rest_gpu_seconds)}" + _pace(status))
    for each in status.running[:MOST]:
        where = f" on {each.host}" if each.host else ""
        job = f" (Slurm job {each.slurm_job})" if each.slurm_job else ""
        since = f", {duration(each.seconds)}" if each.seconds is not None else ""
        lines += ["", f"running: {each.title}{where}{since}{job}", *_indented([each.progress] if each.progress else [])]
    lines += _more(len(status.running), "running")
    for failure in status.failed[:MOST]:
        lines += ["", f"failed: {failure.title}: {failure.reason}", *_indented([*failure.lines, f"log: {failure.log}"])]
    lines += _more(len(status.failed), "failed")
    if status.failed or (not status.controller and total["done"] < count):
        lines += ["", "the same snakemake command goes on from here"]
    return "\n".join(lines)


def as_data(status: Status) -> dict[str, Any]:
    """The same as a JSON value."""
    total = status.total
    return {
        **asdict(status),
        "counts": {rule: {state: counts[state] for state in STATES} for rule, counts in status.counts.items()},
        "total": {state: total[state] for state in STATES},
    }


def duration(seconds: float) -> str:
    """Seconds in the two largest units that say something."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def _table(status: Status) -> list[str]:
    rows = {**status.counts, "total": status.total}
    width = max(map(len, rows))
    header = f"{'':{width}}" + "".join(f"{state:>9}" for state in STATES)
    return [header, *(f"{rule:{width}}" + "".join(f"{counts[state] or '-':>9}" for state in STATES) for rule, counts in rows.items())]


def _gpu_hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} GPU-hours"


def _lost(status: Status) -> str:
    return f", {duration(status.lost_seconds)} of them in failed attempts" if status.lost_seconds else ""


def _pace(status: Status) -> str:
    """Wall time, if as many jobs go on running as now."""
    jobs = len(status.running)
    return f", so about {duration(status.rest_seconds / jobs)} with {jobs} jobs at a time" if jobs else ""


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line[:WIDTH]}" for line in lines]


def _more(count: int, what: str) -> list[str]:
    return ["", f"and {count - MOST} more {what} (all with --json)"] if count > MOST else []
