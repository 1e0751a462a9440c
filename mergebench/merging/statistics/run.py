"""Measure one specialist on its own domain's calibration rows: Fisher information, Gram matrices, a mask.

Spec: ``base``, ``domain``, ``kinds`` (or one ``kind``), ``settings`` (kind -> settings), ``calibration``
(``rows``: at most so many; ``max_length`` in tokens), ``template``, ``seed``, ``scope`` (of a mask). Inputs: ``base`` and
``specialist`` (weights folders), ``data`` (manifest of the domain's training set; its calibration rows lie beside it),
``hits`` (a decontamination's list of rows to leave out). Outputs: a file per kind, named after it (or ``statistics`` where one
kind is asked for).

Several processes may share the work (`mergebench.launch`); the main one writes. What is finished is kept in the job's state,
and a job that was interrupted goes on from there.
"""

from collections.abc import Callable
from typing import Any

import torch

from mergebench.artifacts import Job, sha256_json
from mergebench.checkpoints.digest import recorded_weights_digest
from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.merging.statistics import fisher, gram, mask
from mergebench.merging.statistics.calibration import calibration_digest, calibration_examples, check_pairing, subset
from mergebench.merging.statistics.parts import Parts
from mergebench.merging.statistics.processes import joined
from mergebench.merging.statistics.settings import KINDS, Execution
from mergebench.merging.statistics.task import Measured, Task
from mergebench.training import distributed
from mergebench.training.models import load_tokenizer
from mergebench.training.preemption import Signals
from mergebench.training.settings import parse
from mergebench.training.templates import template_facts, use_template

FORMAT = 1  # of parts; another one does not go on from what an older version has left
MEASURES: dict[str, Callable[[Task], Measured]] = {"fisher": fisher.measure, "gram": gram.measure, "mask": mask.measure}


def run(job: Job) -> dict[str, Any]:
    """Compute the kinds asked for; returns the facts for the manifest (none, in a process that is not the main one)."""
    torch.set_num_threads(job.threads)
    kinds = job.spec.get("kinds") or [job.spec["kind"]]
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise MergebenchError(f"statistic {unknown[0]!r} is unknown; allowed: {', '.join(KINDS)}.")
    check_pairing(job.spec, job.path("specialist"), job.path("data"))
    with Signals() as signals, joined():
        facts = {kind: _measure(job, kind, signals) for kind in sorted(kinds, key=list(KINDS).index)}
    return {"base": job.spec["base"], "domain": job.spec["domain"], "kinds": facts} if distributed.is_main() else {}


def _measure(job: Job, kind: str, signals: Signals) -> dict[str, Any]:
    """Measure one kind and write its file; returns the facts."""
    spec, seed = job.spec, job.spec["seed"]
    with job.timing("load"):
        settings = parse(KINDS[kind], spec.get("settings", {}).get(kind, {}), f"settings.{kind}")
        base, specialist = Checkpoint(job.path("base")), Checkpoint(job.path("specialist"))
        template = spec.get("template", "chat")
        tokenizer = use_template(load_tokenizer(base.folder), template)
        digest = calibration_digest(spec["domain"], job.path("data"))
        limits = spec.get("calibration", {})
        hits = job.path("hits") if job.paths("hits") else None
        examples = calibration_examples(tokenizer, job.path("data"), limits.get("rows"), limits.get("max_length", 4096), seed, hits)
        examples = subset(examples, settings.rows, seed)
        facts = {
            "base_weights": recorded_weights_digest(base.folder),
            "specialist_weights": recorded_weights_digest(specialist.folder),
            "calibration_sha256": digest,
            "rows": len(examples),
            "settings": settings.model_dump(mode="json"),
            "seed": seed,
            **template_facts(tokenizer, template),
        }
    rows = sha256_json([(e.id, e.input_ids, e.labels) for e in examples])
    key = sha256_json([FORMAT, kind, facts, spec.get("scope"), rows])
    parts = Parts(job.state / kind, key)
    if distributed.is_main():
        parts.begin()
    distributed.wait_for_all()
    execution = Execution.of(job.requested)
    task = Task(job, kind, settings, execution, base, specialist, tokenizer, examples, seed, parts, signals)
    with job.timing(kind):
        measured = MEASURES[kind](task)
        if not task.main:
            return {}
        identity = {"kind": kind, "base": spec["base"], "domain": spec["domain"]}
        facts |= measured.facts
        name = kind if kind in job.outputs else "statistics"
        stored = parts.join(job.staging(name), measured.units, identity | facts, measured.aliases)
    return facts | {"stored_tensors": stored}
