"""What the campaign needs of a site: licences, a token, space."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mergebench import catalogue
from mergebench.workflow.jobs import planned_jobs
from mergebench.workflow.plan import Plan
from mergebench.workflow.resources import Resources, Site
from mergebench.workflow.storage import Storage

FILES_PER_MODEL = 20
FILES_PER_SCORE = 6


def gated(plan: Plan) -> list[str]:
    """Bases, datasets and the judge that are not fetched yet and whose licence the hub asks to accept."""
    data = plan.preset.data
    bases = {b: e for b in plan.bases if (e := catalogue.bases()[b]).get("gated") and "path" not in e}
    wanted = [b for b in bases if not Path(plan.model(b, "base"), "manifest.json").is_file()]
    entries = catalogue.datasets()
    for name in (*plan.benchmark_datasets, *plan.training_sets):
        if entries[name].get("gated") and data.sources.get(name, data.source) == "hub" and not Path(plan.data(name)).is_file():
            wanted.append(name)
    if plan.judge and not Path(plan.judge, "manifest.json").is_file():
        name = plan.preset.evaluation.judge
        entry = catalogue.judges()[name]
        wanted += [name] if entry.get("gated") and "path" not in entry else []
    return wanted


def has_token(environment: Mapping[str, str]) -> bool:
    """Whether the hub's client will find a token, in the environment or in its file; the token itself is not kept."""
    if environment.get("HF_TOKEN") or environment.get("HUGGING_FACE_HUB_TOKEN"):
        return True
    home = environment.get("HF_HOME") or str(Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")
    path = Path(environment.get("HF_TOKEN_PATH") or Path(home) / "token").expanduser()
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def more_bytes(plan: Plan, profile: dict[str, Any]) -> int:
    """Bytes that the campaign still adds to the disk at its peak, with the GPU quota of the profile."""
    storage = Storage(Resources(plan, Site.of(profile.get("default-resources"))), (profile.get("resources") or {}).get("gpu"))
    jobs = list(planned_jobs(plan))
    finished = [job for job in jobs if all(map(os.path.exists, job.outputs))]
    peak = storage.space((job.stage, job.wildcards) for job in jobs).peak
    return int(peak - storage.space(((job.stage, job.wildcards) for job in finished), gpus=0).kept)


def files(plan: Plan) -> int:
    """How many files the campaign makes, roughly."""
    return len(plan.models) * FILES_PER_MODEL + len(plan.scores) * FILES_PER_SCORE


def runs_code(plan: Plan) -> bool:
    """Whether programs written by a model are run to score them."""
    return any(catalogue.benchmarks()[b]["domain"] == "coding" for b in plan.benchmark_datasets)
