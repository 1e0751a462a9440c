"""What Slurm says about the jobs of a run: one question to squeue, and one to sacct about a job that squeue has forgotten."""

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

SECONDS = 60  # a busy slurmctld answers late
FIELDS = "%i|%T|%M|%l|%N|%r"
# States that a job does not leave; Slurm may still put back a job in one of PASSING.
DONE = "COMPLETED"
FAILED = frozenset({"CANCELLED", "DEADLINE", "ERROR", "FAILED", "LAUNCH_FAILED", "OUT_OF_MEMORY", "REVOKED", "TIMEOUT"})
PASSING = frozenset({"BOOT_FAIL", "NODE_FAIL", "PREEMPTED"})


@dataclass(frozen=True)
class Record:
    """One job: Slurm's state, seconds that it has run and may run, its nodes, and why it waits or ended."""

    state: str
    seconds: float = 0.0
    limit: float = float("inf")
    nodes: str = ""
    reason: str = ""


def ask(name: str, clusters: Iterable[str] = ()) -> dict[str, Record] | None:
    """All jobs called `name`, by id, finished ones included as long as slurmctld remembers them; None without an answer."""
    where = [f"--clusters={','.join(sorted(clusters))}"] if clusters else []
    command = ["squeue", f"--name={name}", "--states=all", "--noheader", f"--format={FIELDS}", *where]
    text = _output(command)
    return None if text is None else parse(text)


def parse(text: str) -> dict[str, Record]:
    """The records in an answer in the format of `ask`; other lines, such as names of clusters, are passed over."""
    found = {}
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|", 5)]
        if len(fields) == 6:
            job, state, used, limit, nodes, reason = fields
            found[job] = Record(word(state), seconds(used) or 0.0, seconds(limit) or float("inf"), nodes, reason)
    return found


def accounted(job: str) -> Record | None:
    """A job's last record in the accounting database; None where there is no database or no such job."""
    text = _output(["sacct", "--jobs", job, "-X", "--noheader", "--parsable2", "--format=State,Elapsed,Timelimit,NodeList"])
    lines = [line.split("|") for line in (text or "").splitlines() if line.count("|") == 3]
    if not lines:
        return None
    state, used, limit, nodes = lines[-1]
    return Record(word(state), seconds(used) or 0.0, seconds(limit) or float("inf"), nodes)


def word(state: str) -> str:
    """The state without what accounting adds to it (``CANCELLED by 1000``)."""
    return state.split(maxsplit=1)[0].rstrip("+") if state else "UNKNOWN"


def seconds(duration: str) -> float | None:
    """Slurm's ``[days-][[hours:]minutes:]seconds`` in seconds; None for words such as UNLIMITED."""
    match = re.fullmatch(r"(?:(\d+)-)?((?:\d+:){0,2}\d+)", duration)
    if match is None:
        return None
    parts = [int(part) for part in match[2].split(":")]
    return int(match[1] or 0) * 86_400.0 + sum(part * 60**i for i, part in enumerate(reversed(parts)))


def _output(command: list[str]) -> str | None:
    """What a command prints, or None where it fails, hangs or is not there. The user's own display settings do not count."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_", "SLURM_TIME_FORMAT"))}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
