"""Train one model: a specialist by SFT, the math specialist's GRPO stage, or the multitask baseline.

Spec: ``base``, ``model``, ``algorithm`` (sft | grpo), ``domains``, ``settings`` (SFT) or ``grpo``, ``seed``, and
optionally ``dtype`` of the exported weights. Inputs: ``base`` and ``init`` (weights folders; `init` gives the
starting weights, `base` the reference of the export), ``data`` (manifests of the training sets, in the order of
`domains`) or ``grpo_data``. Outputs: ``weights`` (folder) and ``log`` (losses, JSONL).

Several processes may share the work (`mergebench.launch`); the main one writes the outputs.
"""

from pathlib import Path
from typing import Any

import torch

from mergebench.artifacts import Job, sha256_json
from mergebench.errors import MergebenchError
from mergebench.training import distributed
from mergebench.training.examples import Example, encode, read_rows
from mergebench.training.export import export_weights
from mergebench.training.models import load_model, load_tokenizer
from mergebench.training.preemption import Signals
from mergebench.training.settings import GrpoSettings, SftSettings, parse
from mergebench.training.templates import use_template
from mergebench.training.watch import write_log


def run(job: Job) -> dict[str, Any]:
    """Train, check, export; returns the facts for the manifest (none, in a process that is not the main one)."""
    torch.set_num_threads(job.threads)
    base = job.path("base")
    init = job.path("init") if job.paths("init") else base
    stages = {"sft": _sft, "grpo": _grpo}
    algorithm = job.spec["algorithm"]
    if algorithm not in stages:
        raise MergebenchError(f"algorithm {algorithm!r} is unknown; allowed: {', '.join(stages)}.")
    with Signals() as signals:
        with job.timing("load"):
            model, tokenizer = load_model(init), load_tokenizer(base)
        lines, facts = stages[algorithm](job, model, tokenizer, signals)
    distributed.leave()
    if not distributed.is_main():
        return {}
    write_log(lines, job.staging("log"))
    with job.timing("export"):
        exported = export_weights(model.state_dict(), base, job.staging("weights"), job.spec.get("dtype", "base"))
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


def _sft(job: Job, model: Any, tokenizer: Any, signals: Signals) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    from mergebench.training.sft import plan, train_sft

    settings = parse(SftSettings, job.spec["settings"], "settings")
    use_template(tokenizer, settings.template)
    with job.timing("data"):
        domains = _examples(job, tokenizer, settings.max_length)
    examples = [example for domain in domains for example in domain]
    order = plan(domains, settings, job.spec["seed"])
    with job.timing("algorithm"):
        lines = train_sft(model, tokenizer, examples, order, settings, _run(job, signals))
    facts = {
        "settings": settings.model_dump(),
        "rows": dict(zip(job.spec["domains"], map(len, domains), strict=True)),
        "tokens": sum(len(example.input_ids) for example in examples),
        "response_tokens": sum(example.response_tokens for example in examples),
        "tokens_seen": sum(len(examples[index].input_ids) for index in order),
    }
    return lines, facts


def _grpo(job: Job, model: Any, tokenizer: Any, signals: Signals) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    from mergebench.training.grpo import train_grpo

    settings = parse(GrpoSettings, job.spec["grpo"], "grpo")
    use_template(tokenizer, settings.template)
    rows = read_rows(job.path("grpo_data").with_name("train.jsonl"), ("id", "prompt", "answer"))
    with job.timing("algorithm"):
        lines = train_grpo(model, tokenizer, rows, settings, _run(job, signals))
    rewards = [line["reward"] for line in lines if "reward" in line]
    facts = {
        "settings": settings.model_dump(),
        "rows": {domain: len(rows) for domain in job.spec["domains"]},
        "first_reward": round(rewards[0], 4),
        "final_reward": round(rewards[-1], 4),
    }
    return lines, facts


def _examples(job: Job, tokenizer: Any, max_length: int) -> list[list[Example]]:
    manifests, domains = job.paths("data"), job.spec["domains"]
    if len(manifests) != len(domains):
        raise MergebenchError(f"{len(domains)} domains ({', '.join(domains)}) but {len(manifests)} training sets.")
    for manifest, domain in zip(manifests, domains, strict=True):
        if manifest.parent.name != f"train_{domain}":
            raise MergebenchError(f"domain {domain} was given {manifest.parent}; expected the folder train_{domain}.")
    return [encode(tokenizer, _rows(manifest), max_length) for manifest in manifests]


def _rows(manifest: Path) -> list[dict[str, Any]]:
    return read_rows(manifest.with_name("train.jsonl"), ("id", "prompt", "response"))


def _run(job: Job, signals: Signals) -> Any:
    from mergebench.training.sft import Run

    state = job.state / "checkpoints"
    return Run(state=state, key=sha256_json(job.spec), seed=job.spec["seed"], progress=job.progress, signals=signals)
