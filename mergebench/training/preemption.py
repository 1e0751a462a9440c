"""Interrupted training: save on a signal, leave with a code that means "again", resume from the last good state.

Checkpoints live in the job's state directory, outside the declared outputs. A checkpoint counts only once
`COMPLETE` is in it: that file is written last and lists every other file with its size, so a half-written or
truncated checkpoint is never resumed.
"""

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from mergebench.artifacts import AGAIN, Interrupted, write_json
from mergebench.errors import MergebenchError
from mergebench.training import distributed

COMPLETE = "complete.json"
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preempted(Interrupted):
    """Training stopped at a signal after saving its state; the process ends with exit code 75."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, AGAIN)


class Signals:
    """Remembers, while entered, that SIGTERM or SIGUSR1 has come; the handlers found are put back afterwards."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._process = os.getpid()

    def __enter__(self) -> "Signals":
        self._previous = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        if os.getpid() == self._process:  # forked data workers inherit the handler
            self.received = signal.Signals(number).name


class Preemption(TrainerCallback):
    """Saves a checkpoint and stops when any process has had one of the `signals`, and saves every `seconds`.

    All processes agree at the end of each step, so that they save at the same one. `key` identifies the run
    (a digest of what decides its result): a checkpoint of another run in the same directory is not resumed. `fixed`
    says that the processes have divided the state among them, so that as many must take it up again.
    """

    def __init__(self, directory: Path, key: str, seconds: float, signals: Signals, *, fixed: bool = False) -> None:
        self.directory, self.key, self.seconds, self.signals = directory, key, seconds, signals
        self.processes = distributed.world_size() if fixed else None
        self._last_save = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        stop, due = distributed.any_of(self.signals.received is not None, time.monotonic() - self._last_save > self.seconds)
        if state.global_step < state.max_steps and (stop or due):
            control.should_save = True
            control.should_training_stop = stop
            self._last_save = time.monotonic()
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        distributed.wait_for_all()
        if state.is_world_process_zero:
            mark_complete(self.directory / f"checkpoint-{state.global_step}", self.key, self.processes)


def mark_complete(checkpoint: Path, key: str, processes: int | None = None) -> None:
    """Declare a checkpoint complete, and remove the older ones; `processes` is the number that must resume it (None: any)."""
    files = {p.relative_to(checkpoint).as_posix(): p.stat().st_size for p in checkpoint.rglob("*") if p.is_file()}
    files.pop(COMPLETE, None)
    write_json(checkpoint / COMPLETE, {"key": key, "processes": processes, "files": files})
    for other in checkpoint.parent.glob("checkpoint-*"):
        if _step(other) < _step(checkpoint):
            shutil.rmtree(other)


def newest_checkpoint(directory: Path, key: str) -> Path | None:
    """The complete checkpoint of the run `key` with the most steps, or None."""
    good = [path for path in directory.glob("checkpoint-*") if _is_good(path, key)]
    return max(good, key=_step, default=None)


def _is_good(checkpoint: Path, key: str) -> bool:
    try:
        marker = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
        return marker["key"] == key and all((checkpoint / name).stat().st_size == size for name, size in marker["files"].items())
    except (OSError, ValueError, KeyError):
        return False


def check_processes(checkpoint: Path, processes: int | None) -> None:
    """Refuse a checkpoint that was divided among another number of processes than `processes`."""
    saved = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))["processes"]
    if saved is not None and saved != processes:
        raise MergebenchError(
            f"{checkpoint} was divided among {saved} processes, now there are {processes}; "
            f"start as many as before (--tasks {saved}), or delete {checkpoint.parent} to begin anew."
        )


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def run_trainer(trainer: Any, preemption: Preemption, report: Callable[[Path], None]) -> None:
    """Train from the newest complete checkpoint, if any, to the end, or raise `Preempted` at a signal."""
    found = newest_checkpoint(preemption.directory, preemption.key) if distributed.is_main() else None
    checkpoint = distributed.as_main_has_it(str(found) if found else None)
    if found is not None:
        check_processes(found, preemption.processes)
        report(found)
    with deterministic_on_cpu():
        trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.state.global_step < trainer.state.max_steps:
        raise Preempted(preemption.signals.received or "a signal to another task")


@contextlib.contextmanager
def deterministic_on_cpu() -> Iterator[None]:
    """Ask torch for deterministic algorithms while training on the CPU; on a GPU they cost too much.

    Filling fresh memory, which torch does by default in this mode, is switched off: it guards against reads of
    uninitialised memory, not against nondeterminism, and doubles the time of a small step.
    """
    before = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    filling = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(before or not torch.cuda.is_available())
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = filling
