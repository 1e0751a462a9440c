"""Why jobs ended before they were done, and by how much their next attempt asks for more.

The process that watches the Slurm jobs writes each end to a file named in the environment. The jobs read it too, so
that a job computes the very request with which it was submitted.
"""

import json
import os
import re
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from mergebench.artifacts import read_json, write_json
from mergebench.workflow.resources import Escalation

VARIABLE = "MERGEBENCH_ENDS"
OLD_SECONDS = 30 * 24 * 3600


class Reason(StrEnum):
    """Why a job ended."""

    MEMORY = "out of memory"
    TIME = "out of time"
    TAKEN = "taken from outside"  # cancelled, preempted, or its node failed
    ERROR = "an error of its own"
    UNKNOWN = "unknown"


# What grows: memory, time. A job that was taken, or that failed by itself, needs no more of either than before.
GROWS = {
    Reason.MEMORY: (1, 0),
    Reason.TIME: (0, 1),
    Reason.TAKEN: (0, 0),
    Reason.ERROR: (0, 0),
    Reason.UNKNOWN: (1, 1),
}
# Words of Slurm's daemons, the kernel, srun and Python for a memory kill: a step that is killed for its memory often ends as FAILED.
# `CUDA out of memory` is another thing, which more host memory does not cure.
MEMORY_EVIDENCE = re.compile(
    r"oom[-_ ]kill|exceeded (job |step )?memory limit|task \S+: Out Of Memory|\bMemoryError\b|Cannot allocate memory|"
    r"not enough memory: you tried to allocate",
    re.IGNORECASE,
)
KILLED = re.compile(r"task \S+: Killed|SIGKILL")  # without a time limit, a preemption or scancel: by the kernel, for memory
NOT_STARTED = ("JobLaunchFailure", "launch failed requeued held")
TIME_EVIDENCE = re.compile(r"DUE TO TIME LIMIT")


def begin(folder: Path) -> None:
    """Start an empty record for this run in `folder`, name it in the environment, and remove records of old runs."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("ends-*.json"):
        if time.time() - old.stat().st_mtime > OLD_SECONDS:
            old.unlink(missing_ok=True)
    path = folder.resolve() / f"ends-{os.uname().nodename}-{os.getpid()}-{time.time_ns()}.json"
    write_json(path, {})
    os.environ[VARIABLE] = str(path)


def reason_of(state: str, log: str | None, seconds: float, limit: float, notice: float, why: str = "") -> Reason:
    """The reason behind a Slurm state.

    Args:
        state: Slurm's word, such as FAILED or TIMEOUT.
        log: what the job printed last; None where its log cannot be read.
        seconds: how long it ran; limit: how long it was allowed to (infinite where unknown).
        notice: how many seconds before the limit jobs are told to save and stop; they then end as FAILED.
        why: Slurm's own reason, which says of a job that was put back and could not be started again what its state does not.
    """
    text = log or ""
    if why in NOT_STARTED:
        return Reason.TAKEN
    if state == "OUT_OF_MEMORY" or (state != "TIMEOUT" and MEMORY_EVIDENCE.search(text)):
        return Reason.MEMORY
    if state == "TIMEOUT" or TIME_EVIDENCE.search(text):
        return Reason.TIME
    if state == "FAILED":
        if seconds > limit / 2 and seconds > limit - notice:
            return Reason.TIME
        if KILLED.search(text):
            return Reason.MEMORY
        return Reason.UNKNOWN if log is None else Reason.ERROR
    if state in ("CANCELLED", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "REVOKED"):
        return Reason.TAKEN
    return Reason.UNKNOWN


def record(rule: str, wildcards: Mapping[str, str], reason: Reason) -> None:
    """Note that an attempt of a job has ended before the job was done."""
    path = Path(os.environ[VARIABLE])
    ends = read_json(path)
    ends.setdefault(_key(rule, wildcards), []).append(str(reason))
    write_json(path, ends)


def escalation(rule: str, wildcards: Mapping[str, str], attempt: int) -> Escalation:
    """By what attempt number `attempt` (from 1) of a job asks for more than its first.

    Memory grows with each end for want of memory, time with each time-out, both where the reason is unknown; nobody
    watches local jobs, so that both grow with each attempt of theirs.
    """
    path = Path(os.environ.get(VARIABLE, ""))
    if attempt == 1 or not path.is_file():
        return Escalation(attempt, attempt)
    reasons = [Reason(word) for word in read_json(path).get(_key(rule, wildcards), [])]
    memory, run_time = (1 + sum(GROWS[reason][i] for reason in reasons) for i in (0, 1))
    return Escalation(min(memory, attempt), min(run_time, attempt))


def _key(rule: str, wildcards: Mapping[str, str]) -> str:
    return json.dumps([rule, *sorted(wildcards.items())])
