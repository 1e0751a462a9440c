"""Compare what the plan expects with the files, the leases and the queue."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from mergebench.attempts import RUNNING as ATTEMPT
from mergebench.workflow.jobs import PlannedJob, planned_jobs
from mergebench.workflow.lock import LOCKS
from mergebench.workflow.plan import Plan
from mergebench.workflow.status.evidence import Evidence, holder, modified
from mergebench.workflow.status.queue import SlurmJob, queued
from mergebench.workflow.status.reasons import ended_attempts, last_lines, reason, tail
from mergebench.workflow.status.work import Work

State = Literal["done", "running", "queued", "failed", "waiting"]
STARTING_SECONDS = 60  # between the creation of a log by the shell and the lease of the job lie the imports
SHOWN_LINES = 3
STATES: tuple[State, ...] = ("done", "running", "queued", "failed", "waiting")


@dataclass(frozen=True)
class Running:
    """A job at work: where, for how many seconds (None: unknown), and the last line of its log."""

    title: str
    host: str
    seconds: float | None
    progress: str
    log: str
    slurm_job: str = ""


@dataclass(frozen=True)
class Failed:
    """A job whose last attempt ended before it was done: the likely reason and the last lines of its log."""

    title: str
    reason: str
    lines: list[str]
    log: str
    attempts: int


@dataclass
class Status:
    """A campaign at one moment. Seconds are those of jobs, added up; `rest_seconds` is estimated."""

    preset: str
    results: str
    controller: str
    counts: dict[str, Counter[State]] = field(default_factory=dict)
    running: list[Running] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    gpu_seconds: float = 0.0
    job_seconds: float = 0.0
    lost_seconds: float = 0.0
    rest_seconds: float = 0.0
    rest_gpu_seconds: float = 0.0
    note: str = ""

    @property
    def total(self) -> Counter[State]:
        """Jobs by state, over all rules."""
        return sum(self.counts.values(), Counter[State]())


def look(plan: Plan) -> Status:
    """The state of every job of a plan. Whether a finished result is up to date is for ``snakemake -n`` to say."""
    status = Status(plan.name, plan.results, holder(LOCKS / f"{plan.name}.lock"))
    queue, status.note = queued(Path(plan.results))
    if not status.controller and any(holder(path) for path in LOCKS.glob("*.lock")):
        queue = {}  # Slurm's jobs do not name their preset: they are those of the workflow that is alive in this folder
    evidence, work = Evidence(plan), Work(plan)
    begun: list[tuple[PlannedJob, str]] = []
    matched: set[str] = set()
    for job in planned_jobs(plan):
        slurm, done = queue.get(job.slurm_name), evidence.done(job)
        folder = "" if done else evidence.state(job)
        matched.add(folder)
        held = holder(Path(folder, "lease")) if folder else ""
        state: State = "done" if done else "waiting"
        if slurm is not None and not slurm.running:
            state = "queued"
        elif slurm is not None or held:
            state = "running"
            status.running.append(_running(job, slurm, held, folder))
        elif evidence.begun(job):
            begun.append((job, folder))
            continue
        _count(status, work, job, state)
    others = _other_leases(evidence, matched) if begun else {}
    for job, folder in sorted(begun, key=lambda pair: -modified(pair[0].log)):
        _count(status, work, job, _undecided(status, evidence, job, folder, others.get(job.stage, [])))
    status.gpu_seconds, status.lost_seconds, status.job_seconds = work.gpu, work.lost, work.spent
    status.rest_seconds, status.rest_gpu_seconds = work.rest, work.rest_gpu
    status.counts = {rule: status.counts[rule] for rule in plan.job_counts() if rule in status.counts}
    return status


def _count(status: Status, work: Work, job: PlannedJob, state: State) -> None:
    status.counts.setdefault(job.rule, Counter())[state] += 1
    work.add(job, done=state == "done")


def _other_leases(evidence: Evidence, matched: set[str]) -> dict[str, list[str]]:
    """By stage, the state folders of jobs that run with another spec than the plan's: the source or the configuration has
    been edited since they were submitted."""
    found: dict[str, list[str]] = {}
    for folder in sorted(evidence.leases - matched):
        if holder(Path(folder, "lease")):
            found.setdefault(Path(folder).name.rpartition("-")[0], []).append(folder)
    return found


def _undecided(status: Status, evidence: Evidence, job: PlannedJob, folder: str, others: list[str]) -> State:
    """The state of a job that has begun, is not done, and of which neither Slurm nor its own lease says that it runs.

    A lease of its stage that belongs to no job of the plan is taken for its own, if it has printed something since.
    """
    log = tail(Path(job.log))
    since = modified(job.log)
    for other in others:
        if since >= modified(f"{other}/lease"):
            others.remove(other)
            status.running.append(_running(job, None, holder(Path(other, "lease")), other))
            return "running"
    if status.controller and not log and time.time() - since < STARTING_SECONDS:
        status.running.append(_running(job, None, status.controller, folder))
        return "running"
    path = evidence.slurm_log(job)
    slurm_log = tail(path) if path else ""
    ends = ended_attempts(Path(folder)) if folder else []
    lines = last_lines(log, SHOWN_LINES) or last_lines(slurm_log, SHOWN_LINES)
    status.failed.append(Failed(job.title, reason(log, slurm_log, ends), lines, job.log, len(ends) or 1))
    return "failed"


def _running(job: PlannedJob, slurm: SlurmJob | None, held: str, state: str) -> Running:
    began = _began(Path(state, ATTEMPT)) if state else None
    lines = last_lines(tail(Path(job.log)), 1)
    host = slurm.nodes if slurm is not None else held.rpartition(" on ")[2]
    seconds = time.time() - began if began is not None else elapsed(slurm.elapsed) if slurm is not None else None
    return Running(job.title, host, seconds, lines[0] if lines else "", job.log, slurm.number if slurm is not None else "")


def elapsed(text: str) -> float | None:
    """Seconds of ``squeue``'s [days-][hours:]minutes:seconds; None if it is not one."""
    if not re.fullmatch(r"(\d+-)?[\d:]+", text):
        return None
    days, _, clock = text.rpartition("-")
    seconds = 0.0
    for part in clock.split(":"):
        seconds = seconds * 60 + int(part)
    return int(days or 0) * 86_400 + seconds


def _began(path: Path) -> float | None:
    try:
        return datetime.fromisoformat(json.loads(path.read_text(encoding="utf-8"))["start"]).timestamp()
    except (OSError, ValueError, KeyError, TypeError):
        return None
