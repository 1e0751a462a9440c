"""What a job asks of the cluster: its estimate with a margin, rounded, within what the site has.

Facts about the site come from the profile's `default-resources`: `gpu_memory_gb` (default 80), `gpus_per_node` (default 8) and
`max_runtime` (minutes, the longest run time that a partition accepts; default: no limit). Without a profile the defaults hold.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from mergebench.errors import MergebenchError
from mergebench.workflow.estimates import GB, Estimate, Estimates
from mergebench.workflow.plan import Plan

MEMORY_MARGIN, TIME_MARGIN = 1.25, 2.0
GPU_SHARE = 0.9  # of a GPU's memory that a job may plan with; the rest is the driver's, the libraries' and fragmentation
SCALING = 0.9  # efficiency of several GPUs
LAUNCHERS_MB = 700  # the Snakemake processes that start the job live in the same allocation
MEMORY_STEP_MB, TIME_STEP = 500, 10
LEAST_MINUTES = 10


@dataclass(frozen=True)
class Escalation:
    """By what a repeated attempt asks for more: factors >= 1 of memory and of run time."""

    memory: int = 1
    time: int = 1


@dataclass(frozen=True)
class Site:
    """What the cluster has."""

    gpu_memory_gb: int = 80
    gpus_per_node: int = 8
    max_runtime: int | None = None

    @classmethod
    def of(cls, defaults: Mapping[str, Any] | None) -> Self:
        """The site as the profile's `default-resources` describe it (`workflow.resource_settings.default_resources`).

        Raises:
            MergebenchError: one of the three is not a positive whole number.
        """
        found = {}
        for name in ("gpu_memory_gb", "gpus_per_node", "max_runtime"):
            if defaults is None or name not in defaults:
                continue
            entry = defaults[name]
            value = None if callable(getattr(entry, "is_evaluable", None)) and entry.is_evaluable() else getattr(entry, "value", entry)
            if not isinstance(value, int) or value < 1:
                raise MergebenchError(f"profile: default-resources.{name} is {value!r}; give a whole number above 0, or leave it out.")
            found[name] = value
        return cls(**found)


@dataclass(frozen=True)
class Request:
    """The resources of one job.

    Attributes:
        gpu: GPUs in all.
        nodes: nodes over which they lie.
        tasks: processes, one per GPU, at least one.
        threads: CPU threads of each process.
        mem_mb: host memory on each node, in MB.
        runtime: minutes.
    """

    gpu: int
    nodes: int
    tasks: int
    threads: int
    mem_mb: int
    runtime: int

    @property
    def mpi(self) -> str | None:
        """What starts several processes; None where there is one."""
        return "srun" if self.tasks > 1 else None


class Resources:
    """The requests of a plan's jobs at a site."""

    def __init__(self, plan: Plan, site: Site) -> None:
        self.site = site
        self.estimates = Estimates(plan)
        self._gpus: dict[Estimate, int] = {}

    def of(self, stage: str, escalation: Escalation | None = None, **wildcards: str) -> Request:
        """What a job of `stage` asks for; `wildcards` as in `Estimates.of`."""
        return self.request(self.estimates.of(stage, **wildcards), escalation or Escalation())

    def request(self, estimate: Estimate, escalation: Escalation) -> Request:
        """An estimate as a request: memory and time with a margin and the escalation, rounded up."""
        site = self.site
        gpu = self.gpus(estimate)
        nodes = math.ceil(gpu / site.gpus_per_node) or 1
        tasks = max(gpu, 1)
        memory = estimate.host_bytes / 1e6 * math.ceil(tasks / nodes) * MEMORY_MARGIN + LAUNCHERS_MB
        minutes = max(self.seconds(estimate) * TIME_MARGIN / 60, LEAST_MINUTES)
        runtime = _up(minutes, TIME_STEP) * escalation.time
        return Request(
            gpu=gpu,
            nodes=nodes,
            tasks=tasks,
            threads=estimate.threads,
            mem_mb=_up(memory, MEMORY_STEP_MB) * escalation.memory,
            runtime=min(runtime, site.max_runtime or runtime),
        )

    def gpus(self, estimate: Estimate) -> int:
        """The fewest GPUs whose memory holds the job: 1, 2, 4, ... on a node, then whole nodes; or those that its settings ask for.

        A job that fits nowhere asks for as many as its samples divide into; `fits` says so.
        """
        if not estimate.gpu_bytes:
            return 0
        if not estimate.sharded:
            return estimate.gpus
        if estimate not in self._gpus:
            choices = [n for n in self._counts if estimate.divides % n == 0]
            self._gpus[estimate] = next((n for n in choices if self._holds(estimate, n)), choices[-1])
        return self._gpus[estimate]

    def fits(self, estimate: Estimate) -> bool:
        """Whether the GPUs that a job asks for hold it."""
        return not estimate.gpu_bytes or self._holds(estimate, self.gpus(estimate))

    def seconds(self, estimate: Estimate) -> float:
        """Wall seconds on the GPUs that the job asks for."""
        gpu = self.gpus(estimate)
        return estimate.start + estimate.seconds / (gpu * SCALING if gpu > 1 else 1)

    @cached_property
    def _counts(self) -> list[int]:
        """Numbers of GPUs that a job may have."""
        node = self.site.gpus_per_node
        powers = [1 << i for i in range(node.bit_length()) if 1 << i <= node]
        return [*powers, *(node * n for n in (2, 4, 8))]

    def _holds(self, estimate: Estimate, gpus: int) -> bool:
        shared = estimate.gpu_bytes / (gpus if estimate.sharded else 1)
        return shared + estimate.local_bytes <= GPU_SHARE * self.site.gpu_memory_gb * GB


def _up(value: float, step: int) -> int:
    return math.ceil(value / step) * step
