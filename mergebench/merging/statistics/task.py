"""What the module of one kind of statistic is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mergebench.artifacts import Job
from mergebench.checkpoints.reader import Checkpoint
from mergebench.merging.statistics.parts import Parts
from mergebench.merging.statistics.processes import agreed
from mergebench.merging.statistics.settings import Execution
from mergebench.training import distributed
from mergebench.training.examples import Example
from mergebench.training.models import load_model
from mergebench.training.preemption import Preempted, Signals


@dataclass(frozen=True)
class Measured:
    """A finished statistic, whose tensors are in the task's parts.

    Attributes:
        units: The parts, in any order; together they are the file.
        facts: What was measured, for the manifest and the file's header; the same in every run, on every machine.
        aliases: Parameter name -> name under which its tensor is stored, for parameters that share one.
    """

    units: Sequence[str]
    facts: dict[str, Any]
    aliases: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One kind of statistic of one specialist, on one domain's calibration rows.

    Attributes:
        job: The job.
        kind: "fisher", "gram", "mask".
        settings: The kind's settings (`settings.KINDS`); they decide the result.
        execution: How it is computed; nothing here changes the result beyond rounding.
        base: The base's checkpoint, mapped from its files and never written.
        specialist: The same of the specialist.
        tokenizer: The base's, with the template set.
        examples: Calibration rows, encoded; the labels of prompts are `IGNORED`.
        seed: The job's seed.
        parts: Finished units and sums in progress.
        signals: SIGTERM and SIGUSR1, once they have come.
    """

    job: Job
    kind: str
    settings: Any
    execution: Execution
    base: Checkpoint
    specialist: Checkpoint
    tokenizer: Any
    examples: list[Example]
    seed: int
    parts: Parts
    signals: Signals

    @property
    def device(self) -> torch.device:
        """This process's GPU, or the CPU where there is none."""
        return distributed.device()

    @property
    def main(self) -> bool:
        """Whether this process writes the parts."""
        return distributed.is_main()

    def load(self, dtype: torch.dtype = torch.float32, checkpoint: Checkpoint | None = None) -> Any:
        """The specialist (or another model) on this process's device, frozen: in evaluation mode, no parameter asking for a gradient."""
        folder = (checkpoint or self.specialist).folder
        model = load_model(folder, dtype=dtype, half_precision=dtype == torch.bfloat16).eval().requires_grad_(False)
        self.memory("model", sum(p.numel() * p.element_size() for p in model.parameters()))
        return model

    def finished(self, unit: str) -> bool:
        """Whether a unit's part is there, as the main process sees it; all processes must ask."""
        return agreed(self.main and self.parts.has(unit))

    def check_preempted(self) -> None:
        """Leave if a signal has come to any process; all processes must ask, after what they have done is saved.

        Raises:
            Preempted: the same command goes on from the finished units.
        """
        if distributed.any_of(self.signals.received is not None)[0]:
            self.leave()

    def leave(self) -> None:
        """End this attempt, with all other processes."""
        distributed.wait_for_all()
        raise Preempted(self.signals.received or "a signal to another task")

    def progress(self, done: float, total: float, what: str, *, before: float = 0) -> None:
        """Report how far the work is; the main process alone speaks."""
        if self.main:
            self.job.progress(done, total, f"{self.kind}: {what}", before=before)

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Add the wall seconds of a block to the cost record."""
        with self.job.timing(f"{self.kind}: {name}"):
            yield

    def memory(self, part: str, size: int) -> None:
        """Note bytes that this process needs at one time, for the cost record; the most where a part is named again."""
        parts = self.job.memory.setdefault(self.kind, {})
        parts[part] = max(parts.get(part, 0), size)

    def room(self) -> int:
        """Bytes on the device that sums of a unit may take now, once the model is loaded; all processes must ask, and get the same.

        Half of what is free: the rest is for activations. On the CPU, of what the job asked for, or of what the machine has.
        """
        if self.execution.group_mb:
            return self.execution.group_mb * 1_000_000
        if self.device.type == "cuda":
            free = torch.cuda.mem_get_info(self.device)[0]
        else:
            asked = self.job.requested.get("mem_mb", 0) * 1_000_000
            taken = sum(self.job.memory.get(self.kind, {}).values())
            free = max(asked - taken, 0) if asked else available_memory()
        return int(distributed.as_main_has_it(str(free)) or 0) // 2


def available_memory() -> int:
    """Bytes of the host's memory that can be had without swapping (Linux)."""
    facts = Path("/proc/meminfo").read_text(encoding="ascii")
    return int(facts.partition("MemAvailable:")[2].split(maxsplit=1)[0]) * 1024
