"""The attempts at a job: when each began, when and why it ended, kept in the job's state until the job is done.

`RUNNING` is there while an attempt runs and is touched as it makes progress. An attempt that was killed outright
(out of memory, a lost node) cannot say so; the next one finds its `RUNNING` and writes its line into `ENDED`.
"""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RUNNING, ENDED = "attempt.json", "attempts.jsonl"
AGAIN = 75  # EX_TEMPFAIL of sysexits.h: the same command will finish the work
UNKNOWN = "unknown: killed outright, as when memory runs out or a node is lost"


class Interrupted(SystemExit):
    """A signal ended the work; `reason` is its name, `code` the status with which the process leaves."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(status)
        self.reason = reason


@dataclass(frozen=True)
class Attempt:
    """The attempt that runs: its start (UTC), how many GPUs it holds, and those before it that failed."""

    start: datetime
    gpus: int
    failed: list[dict[str, Any]]

    @property
    def restarts(self) -> int:
        """How often Slurm has started this very job again, as it does after preemption or the loss of a node."""
        job = os.environ.get("SLURM_JOB_ID")
        counted = sum(end.get("slurm_job_id") == job for end in self.failed) if job else 0
        return max(counted, int(os.environ.get("SLURM_RESTART_COUNT", "0")))

    def summary(self) -> dict[str, Any]:
        """What the failed attempts cost together, and how each ended."""
        return {
            "failed": len(self.failed),
            "wall_seconds": round(sum(end["seconds"] for end in self.failed), 3),
            "gpu_seconds": round(sum(end["seconds"] * end["gpus"] for end in self.failed), 3),
            "ends": self.failed,
        }


@contextlib.contextmanager
def recorded(state: Path, gpus: int) -> Iterator[Attempt]:
    """Keep account of one attempt; the caller holds the lease of `state`.

    SIGTERM raises `Interrupted` inside the block. The account is dropped when the block ends well. A disk that is
    full loses the account, not the job.
    """
    _settle(state)
    attempt = Attempt(datetime.now(UTC), gpus, _ended(state))
    running = {"start": attempt.start.isoformat(timespec="seconds"), "gpus": gpus, "slurm_job_id": os.environ.get("SLURM_JOB_ID")}
    with contextlib.suppress(OSError):
        (state / RUNNING).write_text(json.dumps(running), encoding="utf-8")
    try:
        with interruptible():
            yield attempt
    except BaseException as error:
        _end(state, running, datetime.now(UTC), reason(error))
        raise
    for name in (RUNNING, ENDED):
        (state / name).unlink(missing_ok=True)


def alive(state: Path) -> None:
    """Note that the attempt is alive: if it is killed outright, it counts as having lasted until now."""
    with contextlib.suppress(OSError):
        os.utime(state / RUNNING)


def signalled(state: Path, name: str) -> None:
    """Note a signal on which the attempt will end, in case it is killed outright before it has."""
    with contextlib.suppress(OSError, ValueError):
        running = json.loads((state / RUNNING).read_text(encoding="utf-8"))
        write = state / f".{RUNNING}.{os.getpid()}"
        write.write_text(json.dumps({**running, "signal": name}), encoding="utf-8")
        os.replace(write, state / RUNNING)


def reason(error: BaseException) -> str:
    """Why an attempt ended: the name of a signal, or the error in a sentence."""
    if isinstance(error, Interrupted):
        return error.reason
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT.name
    if isinstance(error, SystemExit):
        return f"exit status {error.code}"
    first = str(error).strip().partition("\n")[0]
    return first if type(error).__name__ == "MergebenchError" else f"{type(error).__name__}: {first}"


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGTERM into `Interrupted`, so that the work is cleaned up and accounted for, and outlive SIGUSR1.

    SIGUSR1 warns of a time limit; work that cannot save itself goes on until the limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number: int, frame: Any) -> None:
        if os.getpid() != owner:  # a forked worker, which inherits the handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        signal.signal(number, signal.SIG_IGN)  # the clean-up is not interrupted again
        raise Interrupted(signal.Signals(number).name, 128 + number)

    previous = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, stop),
        signal.SIGUSR1: signal.signal(signal.SIGUSR1, lambda number, frame: None),
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _settle(state: Path) -> None:
    """Write down the end of an attempt that was killed before it could; it was last alive when its file was touched."""
    try:
        last = (state / RUNNING).stat().st_mtime
        running = json.loads((state / RUNNING).read_text(encoding="utf-8"))
        datetime.fromisoformat(running["start"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    _end(state, running, datetime.fromtimestamp(last, UTC), running.pop("signal", UNKNOWN))


def _end(state: Path, running: dict[str, Any], end: datetime, why: str) -> None:
    seconds = max(0.0, (end - datetime.fromisoformat(running["start"])).total_seconds())
    line = {**running, "end": end.isoformat(timespec="seconds"), "seconds": round(seconds, 3), "reason": why}
    with contextlib.suppress(OSError), (state / ENDED).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
    with contextlib.suppress(OSError):
        (state / RUNNING).unlink()


def _ended(state: Path) -> list[dict[str, Any]]:
    try:
        lines = (state / ENDED).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    ends = []
    for line in lines:
        with contextlib.suppress(ValueError):  # the last line of a full disk may be cut
            ends.append(json.loads(line))
    return ends
