"""Train one model: a specialist by SFT, the math specialist's GRPO stage, or the multitask baseline.

Spec: ``base``, ``model``, ``algorithm`` (sft | grpo), ``domains``, ``settings`` (SFT) or ``grpo``, ``seed``, and
optionally ``dtype`` of the exported weights. Inputs: ``base`` and ``init`` (weights folders; `init` gives the
starting weights, `base` the reference of the export), ``tokens`` or ``data`` (manifests of tokenised or of plain training
sets, in the order of `domains`) or ``grpo_data``, from which the rows listed in ``hits`` (of the decontamination report)
are left out. Outputs: ``weights`` (folder) and ``log`` (losses, JSONL).

Several processes may share the work (`mergebench.launch`); the main one writes the outputs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mergebench.artifacts import Job, sha256_json
from mergebench.data.decontamination.hits import contaminated
from mergebench.errors import MergebenchError
from mergebench.training import distributed
from mergebench.training.examples import encode, read_rows
from mergebench.training.export import export_weights
from mergebench.training.memory import explained
from mergebench.training.models import load_tokenizer
from mergebench.training.preemption import Signals
from mergebench.training.samples import Joined, Listed, Samples
from mergebench.training.settings import GrpoSettings, SftSettings, parse
from mergebench.training.shards.store import Tokens, open_tokens
from mergebench.training.templates import template_facts, use_template
from mergebench.training.watch import write_log


def run(job: Job) -> dict[str, Any]:
    """Train, check, export; returns the facts for the manifest (none, in a process that is not the main one)."""
    torch.set_num_threads(job.threads)
    base = job.path("base")
    init = job.path("init") if job.paths("init") else base
    stages: dict[str, Any] = {"sft": _sft, "grpo": _grpo}
    algorithm = job.spec["algorithm"]
    if algorithm not in stages:
        raise MergebenchError(f"algorithm {algorithm!r} is unknown; allowed: {', '.join(stages)}.")
    with Signals() as signals:
        lines, facts, weights = stages[algorithm](job, init, load_tokenizer(base), signals)
    distributed.leave()
    if not distributed.is_main():
        return {}
    write_log(lines, job.staging("log"))
    with job.timing("export"):
        exported = export_weights(weights, base, job.staging("weights"), job.spec.get("dtype", "base"))
    return {
        "base": job.spec["base"],
        "model": job.spec["model"],
        "algorithm": algorithm,
        "domains": job.spec["domains"],
        "seed": job.spec["seed"],
        "steps": lines[-1]["step"],
        "final_loss": round(lines[-1]["loss"], 4),
        **facts,
        **exported.facts(),
    }


Trained = tuple[list[dict[str, Any]], dict[str, Any], Mapping[str, torch.Tensor]]  # lines of the log, facts, weights


def _sft(job: Job, init: Path, tokenizer: Any, signals: Signals) -> Trained:
    from mergebench.training import engine
    from mergebench.training.sft import schedule, train_sft

    settings = parse(SftSettings, job.spec["settings"], "settings")
    use_template(tokenizer, settings.template)
    with job.timing("data"):
        samples = Joined(_samples(job, tokenizer, settings))
        plan = schedule(samples, settings, job.spec["seed"], distributed.world_size())
    with job.timing("algorithm"), explained(settings):
        lines, trainer = train_sft(init, tokenizer, samples, plan, settings, _run(job, signals))
        weights = engine.weights(trainer, settings)
    facts = {
        **template_facts(tokenizer, settings.template),
        "settings": settings.model_dump(mode="json"),
        "rows": dict(zip(job.spec["domains"], map(len, samples.parts), strict=True)),
        "tokens": sum(samples.lengths),
        "response_tokens": samples.response_tokens,
        "samples_seen": plan.samples,
        "tokens_seen": sum(plan.tokens),
    }
    return lines, facts, weights


def _grpo(job: Job, init: Path, tokenizer: Any, signals: Signals) -> Trained:
    from mergebench.training import engine
    from mergebench.training.grpo import train_grpo

    settings = parse(GrpoSettings, job.spec["grpo"], "grpo")
    use_template(tokenizer, settings.template)
    rows = read_rows(job.path("grpo_data").with_name("train.jsonl"), ("id", "prompt", "answer"))
    if job.paths("hits"):
        removed = contaminated(job.path("hits"))
        rows = [row for row in rows if str(row["id"]) not in removed]
    with job.timing("algorithm"), explained(settings):
        lines, trainer = train_grpo(init, tokenizer, rows, settings, _run(job, signals))
        weights = engine.weights(trainer, settings)
    rewards = [line["reward"] for line in lines if "reward" in line]
    facts = {
        **template_facts(tokenizer, settings.template),
        "settings": settings.model_dump(mode="json"),
        "rows": {domain: len(rows) for domain in job.spec["domains"]},
        "first_reward": round(rewards[0], 4),
        "final_reward": round(rewards[-1], 4),
    }
    return lines, facts, weights


def _samples(job: Job, tokenizer: Any, settings: SftSettings) -> list[Samples]:
    """The samples of each domain: from tokens that a job of their own has made, or of rows that are tokenised here."""
    name = "tokens" if job.paths("tokens") else "data"
    manifests, domains = job.paths(name), job.spec["domains"]
    if len(manifests) != len(domains):
        raise MergebenchError(f"{len(domains)} domains ({', '.join(domains)}) but {len(manifests)} training sets.")
    for manifest, domain in zip(manifests, domains, strict=True):
        if manifest.parent.name != f"train_{domain}":
            raise MergebenchError(f"domain {domain} was given {manifest.parent}; expected the folder train_{domain}.")
    if name == "data":
        return [Listed(encode(tokenizer, _rows(manifest), settings.max_length)) for manifest in manifests]
    return [_tokens(manifest, tokenizer, settings) for manifest in manifests]


def _tokens(manifest: Path, tokenizer: Any, settings: SftSettings) -> Tokens:
    tokens = open_tokens(manifest)
    tokens.check(tokenizer, settings.template, settings.max_length)
    return tokens


def _rows(manifest: Path) -> list[dict[str, Any]]:
    return read_rows(manifest.with_name("train.jsonl"), ("id", "prompt", "response"))


def _run(job: Job, signals: Signals) -> Any:
    from mergebench.training.engine import Run

    state = job.state / "checkpoints"
    return Run(state=state, key=sha256_json(job.spec), seed=job.spec["seed"], progress=job.progress, signals=signals)
