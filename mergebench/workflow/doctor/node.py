"""The same facts from a compute node: the probe as a small job, with a time-out."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergebench.workflow.doctor import folder as files
from mergebench.workflow.doctor import probe
from mergebench.workflow.doctor.cluster import Request
from mergebench.workflow.doctor.commands import ask

JOB_MINUTES = 5
MEMORY_MB = 4000
LOOK_SECONDS = 0.1
ASK_SECONDS = 3.0
GRACE_SECONDS = 90.0
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")


@dataclass(frozen=True)
class Node:
    """What a job on a compute node found, or `problem`: why there is no answer. `seen` is when its file was visible here."""

    partition: str
    facts: dict[str, Any] = field(default_factory=dict)
    seen: float = 0.0
    problem: str = ""


def visit(like: Request, folder: Path, *, timeout: float) -> Node:
    """Run the probe on a node of the partition of a request, with one GPU if the request has any.

    The job runs in this working folder with this Python and this environment, as the workflow's jobs do. A job that has
    not ended after `timeout` seconds is cancelled.
    """
    name = like.partition or "default"
    answer, log = folder.resolve() / f"{name}.json", folder.resolve() / f"{name}.log"
    script = Path(shutil.copy(probe.__file__, folder / "probe.py")).resolve()
    with files.held(folder) as lock:
        command = ["sbatch", "--parsable", "--job-name=mergebench_doctor", f"--output={log}", f"--time={JOB_MINUTES}", "--nodes=1"]
        command += ["--ntasks=1", f"--mem={MEMORY_MB}", f"--chdir={os.getcwd()}"]
        command += [f"--partition={like.partition}"] if like.partition else []
        command += [f"--account={like.account}"] if like.account else []
        if like.gpu:
            command.append(f"--gpus={like.gpu_model}:1" if like.gpu_model else "--gpus=1")
        submitted = ask([*command, f"--wrap=exec {sys.executable} {script} {answer} {lock.resolve()}"])
        if not submitted.good:
            return Node(name, problem=f"sbatch refused the job: {submitted.sentence}")
        job = submitted.out.strip().partition(";")[0]
        try:
            return _wait(name, job, answer, log, timeout)
        except BaseException:
            ask(["scancel", job])
            raise


def _wait(name: str, job: str, answer: Path, log: Path, timeout: float) -> Node:
    """Look for the answer often and ask for the job seldom; an answer may become visible after its job has ended."""
    deadline, asked = time.monotonic() + timeout, 0.0
    ended: float | None = None
    while time.monotonic() < deadline and (ended is None or time.monotonic() < ended + GRACE_SECONDS):
        if answer.exists():
            seen = time.time()
            return Node(name, json.loads(answer.read_text(encoding="utf-8")), seen)
        if time.monotonic() > asked + ASK_SECONDS:
            asked = time.monotonic()
            state = ask(["squeue", "--noheader", f"--jobs={job}", "--states=all", "--format=%T"])
            gone = "invalid job id" in state.error.lower() or (state.good and state.out.strip() in ("", *ENDED))
            ended = ended or (time.monotonic() if gone else None)
            if ended and state.out.strip() not in ("", "COMPLETED"):
                break
        time.sleep(LOOK_SECONDS)
    if ended is None:
        ask(["scancel", job])
        return Node(name, problem=f"job {job} had not ended after {timeout:g} s, and was cancelled")
    told = log.read_text(errors="replace").strip() if log.is_file() else ""
    return Node(name, problem=f"job {job} left no answer: {told.splitlines()[-1] if told else 'neither that nor its log is visible here'}")
