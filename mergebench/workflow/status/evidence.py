"""The traces that jobs leave in the folder of the results: files, leases, logs."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mergebench.workflow.jobs import PlannedJob
from mergebench.workflow.plan import Plan

UNLISTED = ("weights", "checkpoints")  # a job is known by the folder itself


@dataclass
class Evidence:
    """What lies below the results of a plan, listed once."""

    plan: Plan

    @cached_property
    def there(self) -> set[str]:
        """Every file and folder by which a job may be known."""
        found: set[str] = set()
        pending = [self.plan.results]
        while pending:
            try:
                with os.scandir(pending.pop()) as entries:
                    for entry in entries:
                        found.add(entry.path)
                        if entry.name not in UNLISTED and entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
            except OSError:
                continue
        return found

    @cached_property
    def leases(self) -> set[str]:
        """The state folders that have a lease, held or not."""
        state = f"{self.plan.results}/.state/"
        return {path.removesuffix("/lease") for path in self.there if path.startswith(state) and path.endswith("/lease")}

    def done(self, job: PlannedJob) -> bool:
        """Whether all outputs are there."""
        return all(output in self.there for output in job.outputs)

    def begun(self, job: PlannedJob) -> bool:
        """Whether it has a log and no output; of one that was done and has lost some of its outputs nothing is known."""
        return job.log in self.there and not any(output in self.there for output in job.outputs)

    def state(self, job: PlannedJob) -> str:
        """The state folder of a job, if it has one; else ""."""
        folder = job.state(self.plan) if self.leases else ""
        return folder if folder in self.leases else ""

    def slurm_log(self, job: PlannedJob) -> Path | None:
        """The newest Slurm log of a job, where the profile keeps them: beside the results of the presets."""
        folder = Path(self.plan.results).parent / "slurm" / f"rule_{job.rule}" / "_".join(job.names)
        return max(folder.glob("*.log"), key=lambda path: (len(path.stem), path.stem), default=None)


def holder(path: Path) -> str:
    """What the holder of a lock wrote into its file; "" if nobody holds it. The lock is tried for an instant, and shared."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return stream.read().strip() or "another process"
    except OSError:
        return ""
    return ""


def modified(path: str) -> float:
    """When a file was last written; 0 if it is not there."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
