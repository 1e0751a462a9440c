"""The time that a campaign has taken and will take."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from mergebench.workflow.jobs import PlannedJob
from mergebench.workflow.plan import Plan
from mergebench.workflow.resources import Resources, Site


class Work:
    """Seconds of jobs: `spent` and `lost` (in failed attempts) by the cost records, `rest` by the estimates, corrected by what
    finished jobs of the same stage took. `gpu` and `rest_gpu` are GPU-seconds."""

    def __init__(self, plan: Plan) -> None:
        self.resources = Resources(plan, Site())
        self.gpu = self.lost = 0.0
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._expected: defaultdict[str, float] = defaultdict(float)
        self._left: defaultdict[str, float] = defaultdict(float)
        self._gpu_left: defaultdict[str, float] = defaultdict(float)

    def add(self, job: PlannedJob, *, done: bool) -> None:
        """Count one job. One that is done and whose cost record cannot be read counts as nothing."""
        estimate = self.resources.estimates.of(job.stage, **job.wildcards)
        seconds = self.resources.seconds(estimate)
        if not done:
            self._left[job.stage] += seconds
            self._gpu_left[job.stage] += seconds * self.resources.gpus(estimate)
            return
        try:
            record = json.loads(Path(job.cost).read_text(encoding="utf-8"))
            spent, failed = float(record["wall_seconds"]), record.get("attempts", {})
            self.gpu += float(record["gpu_seconds"]) + float(failed.get("gpu_seconds", 0.0))
            self.lost += float(failed.get("wall_seconds", 0.0))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return
        self._spent[job.stage] += spent
        self._expected[job.stage] += seconds

    @property
    def spent(self) -> float:
        """Of the attempts that succeeded."""
        return sum(self._spent.values())

    @property
    def rest(self) -> float:
        """Of the jobs that are not done."""
        return sum(seconds * self._correction(stage) for stage, seconds in self._left.items())

    @property
    def rest_gpu(self) -> float:
        """The same in GPU-seconds."""
        return sum(seconds * self._correction(stage) for stage, seconds in self._gpu_left.items())

    def _correction(self, stage: str) -> float:
        return self._spent[stage] / self._expected[stage] if self._expected[stage] else 1.0
