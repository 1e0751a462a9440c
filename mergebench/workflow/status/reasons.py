"""Why a job ended before it was done, from what it and Slurm printed last and from the account of its attempts."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from mergebench.attempts import ENDED, UNKNOWN
from mergebench.workflow.ends import MEMORY_EVIDENCE, TIME_EVIDENCE

READ_BYTES = 20_000
INTERRUPTED = "ended without a word: killed outright, or its outputs were removed since"
# What Slurm's daemons write into the log of a job, the most telling first.
OF_SLURM = (
    (TIME_EVIDENCE, "time limit"),
    (re.compile(r"DUE TO PREEMPTION"), "preempted"),
    (re.compile(r"DUE TO NODE FAILURE|NODE_FAIL|Node failure"), "node failure"),
    (re.compile(r"CANCELLED AT"), "cancelled"),
)
# What libraries say, where mergebench has no sentence of its own.
OF_LIBRARIES = (
    (re.compile(r"CUDA out of memory|CUDA error: out of memory|OutOfMemoryError"), "GPU memory is full"),
    (re.compile(r"No space left on device|Disk quota exceeded|\bENOSPC\b"), "the disk is full, or a quota is reached"),
    (re.compile(r"is gated|GatedRepoError|401 Client Error"), "a licence or the hub's token is missing"),
    (MEMORY_EVIDENCE, "out of memory"),
    (re.compile(r"NCCL error|ncclSystemError|ncclInternalError|ProcessGroupNCCL.*timeout"), "communication between GPUs failed (NCCL)"),
    (re.compile(r"ModuleNotFoundError|ImportError"), "a package is missing or does not fit"),
)
SENTENCE = re.compile(r"^mergebench: (.+)$", re.MULTILINE)
EXCEPTION = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b.*$", re.MULTILINE)


def reason(log: str, slurm_log: str, ends: Sequence[str]) -> str:
    """The likely reason, in words.

    Args:
        log: the end of the job's own log.
        slurm_log: the end of the newest Slurm log of the job; "" if there is none.
        ends: how its attempts ended, by their own account, oldest first.
    """
    if MEMORY_EVIDENCE.search(slurm_log):
        return "out of memory"
    for pattern, words in OF_SLURM:
        if pattern.search(slurm_log):
            return words
    sentences = SENTENCE.findall(log)
    found = next((words for pattern, words in OF_LIBRARIES if pattern.search(log)), None)
    if sentences:
        return f"{found}: {sentences[-1]}" if found else sentences[-1]
    if found:
        return found
    exceptions = EXCEPTION.findall(log)
    if exceptions:
        return str(exceptions[-1])
    if ends and ends[-1] != UNKNOWN:
        return {"SIGTERM": "stopped from outside (SIGTERM)", "SIGINT": "stopped from the keyboard"}.get(ends[-1], ends[-1])
    return INTERRUPTED


def tail(path: Path) -> str:
    """The end of a text file; "" if it cannot be read."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - READ_BYTES))
            return stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def last_lines(text: str, count: int) -> list[str]:
    """The last lines with something on them; of a line that was written over, what was written last."""
    lines = [line.rstrip().rpartition("\r")[2] for line in text.splitlines()]
    return [line for line in lines if line.strip()][-count:] if count else []


def ended_attempts(state: Path) -> list[str]:
    """How the attempts of a job ended, by the account in its state folder."""
    found = []
    for line in tail(state / ENDED).splitlines():
        try:
            found.append(str(json.loads(line)["reason"]))
        except (ValueError, KeyError, TypeError):
            continue  # a line cut short by a full disk
    return found
