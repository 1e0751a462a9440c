"""Disk: the peak of a run, the budget that it must keep, and how many bases may have undropped merged models at once."""

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mergebench.errors import MergebenchError
from mergebench.workflow.estimates import GB, Estimate
from mergebench.workflow.resources import Resources
from mergebench.workflow.survey import Planned

DEFAULT_GPUS = 8
Named = tuple[str, dict[str, str]]  # a stage and its wildcards, as `Estimates.of` takes them


@dataclass(frozen=True)
class Space:
    """Bytes on disk.

    Attributes:
        kept: what stays.
        saved: states of training jobs that run at once, at most.
        window: merged models that exist until they are dropped, at most.
    """

    kept: float
    saved: float
    window: float

    @property
    def peak(self) -> float:
        """The most that is on disk at any time."""
        return self.kept + self.saved + self.window


class Storage:
    """Disk space of a plan at a site with `gpus` GPUs in use at once."""

    def __init__(self, resources: Resources, gpus: object = None) -> None:
        self.resources = resources
        self.estimates = resources.estimates
        self.plan = resources.estimates.plan
        self.settings = self.plan.preset.storage
        quota = getattr(gpus, "value", gpus)  # Snakemake wraps the numbers of `--resources`
        self.gpus = quota if isinstance(quota, int) else DEFAULT_GPUS

    # -- admission -----------------------------------------------------------------------------------------

    @cached_property
    def bases_at_once(self) -> int:
        """How many bases may have undropped merged models at once; all of them without a budget."""
        bases = len(self.plan.bases)
        if self.settings.budget_gb is None or self.settings.keep_merged:
            return bases
        space = self.space([(stage, wildcards) for _, stage, wildcards in self.plan.jobs()], at_once=1)
        left = self.settings.budget_gb * GB - space.kept - space.saved
        largest = max(self._merged(base) for base in self.plan.bases)
        return min(bases, max(1, int(left // largest)))

    def before(self, base: str) -> list[str]:
        """What must have been dropped before the merges of a base begin: the models of the base `bases_at_once` places before it."""
        position = self.plan.bases.index(base) - self.bases_at_once
        return [self.plan.dropped(self.plan.bases[position], m) for m in self.plan.merged] if position >= 0 else []

    # -- peak ----------------------------------------------------------------------------------------------

    def space(self, jobs: Iterable[Named], *, at_once: int | None = None, gpus: int | None = None, keep: bool | None = None) -> Space:
        """An upper bound of the space that these jobs need.

        Args:
            jobs: stage and wildcards of every job, the finished ones included.
            at_once: bases whose merged models exist at once (default: `bases_at_once`).
            gpus: GPUs in use at once (default: the quota).
            keep: whether merged models are kept (default: the setting).
        """
        keep = self.settings.keep_merged if keep is None else keep
        kept, window = 0.0, dict.fromkeys(self.plan.bases, 0.0)
        saving: list[Estimate] = []
        for stage, wildcards in jobs:
            estimate = self.estimates.of(stage, **wildcards)
            if stage == "merge" and not keep:
                window[wildcards["base"]] += estimate.written
            else:
                kept += estimate.written
            if estimate.working:
                saving.append(estimate)
        at_once = at_once or (self.bases_at_once if not keep else 0)
        return Space(kept, self._saved(saving, gpus or self.gpus), sum(sorted(window.values(), reverse=True)[:at_once]))

    def _saved(self, estimates: list[Estimate], gpus: int) -> float:
        """Saved states of the largest jobs that run at once on `gpus` GPUs; jobs without one run one after the other."""
        total = max((e.working for e in estimates if not self.resources.gpus(e)), default=0.0)
        ranked = [(e.working / n, n, e.working) for e in estimates if (n := self.resources.gpus(e))]
        left = gpus
        for _, needed, working in sorted(ranked, reverse=True):
            if left <= 0:
                break
            total, left = total + working, left - needed
        return total

    def _merged(self, base: str) -> float:
        return sum(self.estimates.of("merge", base=base, method=m).written for m in self.plan.merged)

    # -- budget --------------------------------------------------------------------------------------------

    def named(self, jobs: Iterable[Planned]) -> list[Named]:
        """Jobs of Snakemake's DAG by stage."""
        return [self.plan.stage(job.rule, job.wildcards) for job in jobs]

    def check(self, jobs: Sequence[Planned]) -> None:
        """Compare the peak of a run with the budget.

        Raises:
            MergebenchError: the peak is above it; says what would lower it.
        """
        budget = self.settings.budget_gb
        named = self.named(jobs)
        space = self.space(named)
        if budget is None or space.peak <= budget * GB:
            return
        said = f"storage.budget_gb is {budget:g}, but this run may need {gigabytes(space.peak)} at its peak"
        lower = self.space(named, keep=False, at_once=1).peak
        if self.settings.keep_merged and lower < space.peak:
            advice = f"storage.keep_merged: false lowers that to as little as {gigabytes(lower)}"
        else:
            advice = f"a smaller GPU quota lowers the {gigabytes(space.saved)} that saved states of training take on {self.gpus} GPUs"
        raise MergebenchError(f"{said}; {advice}, and fewer bases or methods lower it too.")

    def shortage(self, jobs: Sequence[Planned]) -> str | None:
        """A sentence if the disk has less room than these jobs may still need, else None."""
        finished = self.space(self.named(job for job in jobs if not job.todo), gpus=0).kept
        needed = self.space(self.named(jobs)).peak - finished
        free = shutil.disk_usage(nearest_folder(Path(self.plan.results))).free
        if needed <= free:
            return None
        return f"this run may need {gigabytes(needed)} more at its peak, and the disk of {self.plan.results} has {gigabytes(free)} free."


def refuse_or_warn(storage: Storage, jobs: Sequence[Planned]) -> None:
    """End a run whose peak is above the budget, in one sentence; warn where the disk is too full for it."""
    try:
        storage.check(jobs)
    except MergebenchError as error:
        sys.exit(f"mergebench: {error}")
    if shortage := storage.shortage(jobs):
        print(f"mergebench: {shortage}", file=sys.stderr)


def gigabytes(size: float) -> str:
    """Bytes in GB, or in MB below one."""
    if size < GB:
        return f"{size / 1e6:,.0f} MB"
    return f"{size / GB:,.0f} GB" if size >= 10 * GB else f"{size / GB:.1f} GB"


def nearest_folder(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.is_dir())
