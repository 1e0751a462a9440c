"""What Snakemake itself plans: every job of the DAG, whether it is still to do, what it waits for and asks for."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.common import LogEvent

from mergebench.artifacts import write_json

VARIABLE = "MERGEBENCH_SURVEY"  # names the file that a surveying dry run writes


@dataclass(frozen=True)
class Planned:
    """One job of the DAG.

    Attributes:
        rule: its rule.
        wildcards: its wildcards.
        todo: whether this run would run it; the others are finished.
        gpu: GPUs that it asks for.
        needs: positions, in the list of jobs, of those that it waits for.
        cost: its cost record, where its rule writes one.
    """

    rule: str
    wildcards: dict[str, str]
    todo: bool
    gpu: int
    needs: list[int]
    cost: str | None


def jobs(dag: Any) -> list[Planned]:
    """The jobs of Snakemake's DAG, those without work of their own (`all`) included."""
    position = {job: number for number, job in enumerate(dag.jobs)}
    return [
        Planned(
            rule=job.rule.name,
            wildcards=dict(job.wildcards_dict),
            todo=bool(dag.needrun(job)),
            gpu=_whole(job.resources.get("gpu")),
            needs=sorted(position[other] for other in dag.dependencies[job]),
            cost=_cost(job.output),
        )
        for job in position
    ]


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _cost(outputs: Any) -> str | None:
    found = dict(outputs.items()).get("cost")
    return str(found) if found is not None else None


def attach(logger: logging.Logger, workflow: Any, environment: Mapping[str, str] = os.environ) -> None:
    """In a surveying dry run, write the plan as soon as it stands, and end the process: nothing else is wanted of it."""
    if VARIABLE in environment:
        logger.addHandler(_Surveyor(workflow, Path(environment[VARIABLE])))


class _Surveyor(logging.Handler):
    """Waits for the event that ends the planning: the statistics of the jobs, or that there is nothing to do."""

    def __init__(self, workflow: Any, path: Path) -> None:
        super().__init__()
        self.workflow, self.path = workflow, path

    def emit(self, record: logging.LogRecord) -> None:
        """Write the plan and leave."""
        if getattr(record, "event", None) == LogEvent.RUN_INFO or record.getMessage().startswith("Nothing to be done"):
            write_json(self.path, [asdict(job) for job in jobs(self.workflow.dag)])
            os._exit(0)


def read(path: Path) -> list[Planned]:
    """A plan as `attach` wrote it."""
    return [Planned(**job) for job in json.loads(path.read_text(encoding="utf-8"))]
