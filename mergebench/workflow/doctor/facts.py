"""All that is asked before the checks run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergebench.errors import MergebenchError
from mergebench.workflow.doctor import folder as files
from mergebench.workflow.doctor import needs, probe
from mergebench.workflow.doctor.cluster import Request, Slurm, ask_slurm, largest_requests
from mergebench.workflow.doctor.commands import Answer
from mergebench.workflow.doctor.node import Node, visit
from mergebench.workflow.doctor.pins import Pins, pins
from mergebench.workflow.plan import Plan

NO_ANSWER = Answer(None, error="scontrol is not installed")


@dataclass(frozen=True)
class Facts:
    """What was found on this machine (`here`), in the folder of the results, in Slurm and on its nodes."""

    here: dict[str, Any]
    folder: files.Folder
    pins: Pins = field(default_factory=lambda: Pins("", {}, {}))
    profile: dict[str, Any] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    slurm: Slurm | None = None
    slurm_answer: Answer = NO_ANSWER
    nodes: list[Node] = field(default_factory=list)
    gated: list[str] = field(default_factory=list)
    token: bool = False
    bases: int = 0
    fetched: int = 0
    needed_bytes: int = 0
    needed_files: int = 0
    runs_code: bool = True
    allow_weak_sandbox: bool = False
    bfloat16: bool = False

    @property
    def submits(self) -> bool:
        """Whether the profile submits jobs to Slurm."""
        return self.profile.get("executor") == "slurm"

    @property
    def without_slurm(self) -> str:
        """Why nothing about Slurm is checked, where there is none."""
        return "no Slurm here" if self.submits else "the profile does not submit to Slurm"

    @property
    def without_nodes(self) -> str:
        """Why no node was asked, where none was."""
        return self.without_slurm if self.slurm is None else "not asked for (--no-job)"


def gather(plan: Plan, profile: dict[str, Any], *, job: bool, timeout: float) -> Facts:
    """Ask this machine, the folder of the results, Slurm and, with `job`, one node of each partition that the profile names.

    Args:
        plan: the campaign that shall run here.
        profile: the Snakemake profile, as read from its file.
        job: whether a job may be submitted.
        timeout: seconds to wait for each job, from submission to its end.
    """
    here = probe.facts()
    requests = largest_requests(plan, profile)
    slurm, answer = ask_slurm(requests) if profile.get("executor") == "slurm" else (None, NO_ANSWER)
    nodes: list[Node] = []
    results = Path(plan.results)
    try:
        with files.workbench(results) as folder:
            examined = files.examine(folder)
            if slurm is not None and job:
                nodes = [visit(r, folder, timeout=timeout) for r in by_partition(requests)]
    except OSError as error:
        examined = files.Folder(str(results.parent), problem=error.strerror or type(error).__name__)
    evaluation = plan.preset.evaluation
    return Facts(
        here=here,
        folder=examined,
        pins=pins(Path.cwd(), built_for_cuda=bool(here["torch"].get("cuda"))),
        profile=profile,
        requests=requests,
        slurm=slurm,
        slurm_answer=answer,
        nodes=nodes,
        gated=needs.gated(plan),
        token=needs.has_token(os.environ),
        bases=len(plan.bases),
        fetched=sum(Path(plan.model(base, "base"), "manifest.json").is_file() for base in plan.bases),
        needed_bytes=needs.more_bytes(plan, profile),
        needed_files=needs.files(plan),
        runs_code=needs.runs_code(plan),
        allow_weak_sandbox=evaluation.allow_weak_sandbox,
        bfloat16=evaluation.dtype == "bfloat16",
    )


def by_partition(requests: list[Request]) -> list[Request]:
    """One request per partition, one for a GPU where there is one."""
    chosen: dict[str, Request] = {}
    for request in sorted(requests, key=lambda r: r.gpu > 0):
        chosen[request.partition] = request
    return list(chosen.values())


def read_profile(folder: Path) -> dict[str, Any]:
    """A Snakemake profile as a map.

    Raises:
        MergebenchError: there is none, or it is not valid YAML.
    """
    import yaml

    path = folder / "config.yaml" if folder.is_dir() else folder
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MergebenchError(f"{path} does not exist; name the folder of a Snakemake profile with --profile.") from None
    except yaml.YAMLError as error:
        raise MergebenchError(f"{path} is not valid YAML: {error}".replace("\n", " ")) from None
    if not isinstance(content, dict):
        raise MergebenchError(f"{path} holds no settings; expected the settings of a Snakemake profile.")
    return content
