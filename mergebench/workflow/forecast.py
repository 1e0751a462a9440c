"""`mergebench plan`: what a target needs before anything is submitted: jobs, GPU-hours, disk, wall-clock.

Snakemake's own dry run, in a process of its own, says which jobs there are and which are still to do; the estimates say
what they cost, corrected by the cost records of those that have finished.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from mergebench.artifacts import read_json
from mergebench.errors import MergebenchError
from mergebench.workflow import survey
from mergebench.workflow.estimates import ASSUMPTIONS, CORE_ASSUMPTIONS, GB, Estimate
from mergebench.workflow.plan import Plan
from mergebench.workflow.resources import Escalation, Resources
from mergebench.workflow.schedule import Task, finish_times
from mergebench.workflow.site_profile import Profile
from mergebench.workflow.storage import Storage, gigabytes
from mergebench.workflow.survey import Planned

LEAST_FINISHED = 3  # cost records of a stage that correct its estimate


@dataclass
class Forecast:
    """The jobs of a target and what they cost, on `gpus` GPUs."""

    plan: Plan
    profile: Profile
    jobs: list[Planned]
    gpus: int

    @cached_property
    def resources(self) -> Resources:
        """The requests of the jobs."""
        return Resources(self.plan, self.profile.site)

    @cached_property
    def stages(self) -> list[str]:
        """The stage of each job."""
        return [self.plan.stage(job.rule, job.wildcards)[0] for job in self.jobs]

    @cached_property
    def estimates(self) -> list[Estimate]:
        """What each job costs, as estimated."""
        named = (self.plan.stage(job.rule, job.wildcards) for job in self.jobs)
        return [self.resources.estimates.of(stage, **wildcards) for stage, wildcards in named]

    @cached_property
    def estimated(self) -> list[float]:
        """Wall seconds of each job, as estimated."""
        return [self.resources.seconds(estimate) for estimate in self.estimates]

    @cached_property
    def corrections(self) -> dict[str, tuple[float, int]]:
        """Measured by estimated seconds, and the number of finished jobs, of each stage that has enough of them."""
        measured: dict[str, list[tuple[float, float]]] = {}
        for job, stage, estimated in zip(self.jobs, self.stages, self.estimated, strict=True):
            if not job.todo and job.cost and Path(job.cost).is_file():
                measured.setdefault(stage, []).append((read_json(Path(job.cost))["wall_seconds"], estimated))
        return {
            stage: (sum(m for m, _ in pairs) / sum(e for _, e in pairs), len(pairs))
            for stage, pairs in measured.items()
            if len(pairs) >= LEAST_FINISHED and any(e for _, e in pairs)
        }

    @cached_property
    def seconds(self) -> list[float]:
        """Wall seconds of each job that is still to do, corrected; zero for the finished ones."""
        return [
            estimated * self.corrections.get(stage, (1.0, 0))[0] if job.todo else 0.0
            for job, stage, estimated in zip(self.jobs, self.stages, self.estimated, strict=True)
        ]

    @cached_property
    def finishes(self) -> list[float]:
        """Seconds from now until each job is done."""
        tasks = [Task(s, job.gpu if job.todo else 0, tuple(job.needs)) for job, s in zip(self.jobs, self.seconds, strict=True)]
        return finish_times(tasks, self.gpus, self.profile.slots)

    def by_rule(self) -> dict[str, dict[str, Any]]:
        """Jobs, hours and bytes of each rule, in the order of the data's way."""
        rules: dict[str, dict[str, Any]] = {}
        for job, estimate, seconds, finish in zip(self.jobs, self.estimates, self.seconds, self.finishes, strict=True):
            empty = {"jobs": 0, "todo": 0, "gpu_hours": 0.0, "cpu_hours": 0.0, "written_bytes": 0.0, "finished_after_hours": 0.0}
            row = rules.setdefault(job.rule, empty)
            row["jobs"] += 1
            if job.todo:
                request = self.resources.request(estimate, Escalation())
                row["todo"] += 1
                row["gpu_hours"] += job.gpu * seconds / 3600
                row["cpu_hours"] += request.threads * request.tasks * seconds / 3600
                row["written_bytes"] += estimate.written
                row["finished_after_hours"] = max(row["finished_after_hours"], finish / 3600)
        return {rule: rules[rule] for rule in self.plan.job_counts() if rule in rules}

    def record(self) -> dict[str, Any]:
        """All numbers: hours, bytes and, by rule, jobs."""
        rules = self.by_rule()
        storage = Storage(self.resources, self.gpus)
        space = storage.space(storage.named(self.jobs))
        return {
            "preset": self.plan.name,
            "gpus": self.gpus,
            "rules": rules,
            "jobs": len(self.jobs),
            "todo": sum(job.todo for job in self.jobs),
            "gpu_hours": sum(row["gpu_hours"] for row in rules.values()),
            "cpu_hours": sum(row["cpu_hours"] for row in rules.values()),
            "wall_hours": max(self.finishes, default=0.0) / 3600,
            "disk": {"peak_bytes": space.peak, "kept_bytes": space.kept, "saved_bytes": space.saved, "window_bytes": space.window},
            "budget_bytes": self.plan.preset.storage.budget_gb and self.plan.preset.storage.budget_gb * GB,
            "corrections": {stage: {"factor": f, "finished": n} for stage, (f, n) in self.corrections.items()},
            "assumptions": ASSUMPTIONS if any(job.gpu for job in self.jobs) else CORE_ASSUMPTIONS,
            "warnings": self.warnings(storage),
        }

    def _misfits(self) -> list[str]:
        """A sentence for each rule, base and kind whose jobs no GPU of the site holds."""
        said = {}
        for job, estimate in zip(self.jobs, self.estimates, strict=True):
            if job.todo and not self.resources.fits(estimate):
                title = " ".join([job.rule, *(job.wildcards[name] for name in ("base", "kind") if name in job.wildcards)])
                needed = estimate.gpu_bytes / self.resources.gpus(estimate) + estimate.local_bytes
                said[title] = f"{title} needs about {gigabytes(needed)} on a GPU of {self.resources.site.gpu_memory_gb} GB"
        return list(said.values())

    def warnings(self, storage: Storage) -> list[str]:
        """What would go wrong: jobs that no GPU holds, more GPUs than there are, a budget or a disk that is too small."""
        said = self._misfits()
        if (largest := max((job.gpu for job in self.jobs if job.todo), default=0)) > self.gpus:
            said.append(f"the largest job asks for {largest} GPUs, more than {self.gpus}")
        try:
            storage.check(self.jobs)
        except MergebenchError as error:
            said.append(str(error))
        if shortage := storage.shortage(self.jobs):
            said.append(shortage)
        return said


def forecast(plan: Plan, targets: Sequence[str], profile: Profile, gpus: int | None, file: Path) -> Forecast:
    """Plan `targets` (none: everything) of a preset with Snakemake, in the current folder.

    Raises:
        MergebenchError: Snakemake refuses to plan them; its last line is passed on.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "profile"
        settings.mkdir()
        (settings / "config.yaml").write_text(yaml.safe_dump({"jobs": profile.slots, **profile.settings}), encoding="utf-8")
        answer = Path(folder) / "survey.json"
        command = [
            *(sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "all", "--profile", str(settings), "--nolock"),
            *(() if file == Path("config.yaml") else ("--configfile", str(file))),
            *("--config", f"preset={plan.name}", f"results={plan.configuration.results}"),
            *("--", *targets),
        ]
        environment = {**os.environ, survey.VARIABLE: str(answer)}
        ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if not answer.is_file():
            lines = [line.strip() for line in ended.stdout.splitlines() if line.strip()]
            reason = next((line for line in lines if line.startswith("mergebench: ")), lines[-1] if lines else "no reason given")
            raise MergebenchError(f"snakemake could not plan this: {reason.removeprefix('mergebench: ')}")
        return Forecast(plan, profile, survey.read(answer), gpus or profile.gpus)
