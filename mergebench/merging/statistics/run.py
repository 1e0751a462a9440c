"""Measure one specialist on its own domain's calibration rows: Fisher information, Gram matrices, a mask.

Spec: ``base``, ``domain``, ``kinds`` (or one ``kind``), ``settings`` (kind -> settings), ``calibration``
(``rows``: at most so many; ``max_length`` in tokens), ``template``, ``seed``. Inputs: ``base`` and ``specialist``
(weights folders), ``data`` (manifest of the domain's training set; its calibration rows lie beside it). Outputs: a
file per kind, named after it (or ``statistics`` where one kind is asked for). Several kinds share one process,
one import and one tokenisation.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mergebench.artifacts import MANIFEST, Job, read_json
from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.merging.scope import ALL, names_in_scope
from mergebench.merging.statistics.fisher import Fisher
from mergebench.merging.statistics.gram import Gram
from mergebench.merging.statistics.mask import train_mask
from mergebench.merging.statistics.settings import KINDS, FisherSettings, GramSettings, MaskSettings
from mergebench.merging.statistics.store import save_statistics
from mergebench.training.examples import Example, encode, read_rows
from mergebench.training.models import load_model, load_tokenizer
from mergebench.training.settings import parse
from mergebench.training.templates import use_template

Measured = tuple[dict[str, torch.Tensor], dict[str, str], dict[str, Any]]  # tensors, aliases, facts


def run(job: Job) -> dict[str, Any]:
    """Compute the kinds asked for; returns the facts for the manifest."""
    torch.set_num_threads(job.threads)
    kinds = job.spec.get("kinds") or [job.spec["kind"]]
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise MergebenchError(f"statistic {unknown[0]!r} is unknown; allowed: {', '.join(KINDS)}.")
    check_pairing(job.spec, job.path("specialist"), job.path("data"))
    with job.timing("load"):
        model, tokenizer = load_model(job.path("specialist")), load_tokenizer(job.path("base"))
        use_template(tokenizer, job.spec.get("template", "chat"))
        examples = _examples(job, tokenizer)
    measures: dict[str, Callable[..., Measured]] = {"fisher": _fisher, "gram": _gram, "mask": _mask}
    # The mask comes last: it uses the specialist's model as a vessel and overwrites its parameters.
    facts = {}
    for kind in sorted(kinds, key=list(KINDS).index):
        settings = parse(KINDS[kind], job.spec.get("settings", {}).get(kind, {}), f"settings.{kind}")
        rows = examples[: settings.rows]
        with job.timing(kind):
            tensors, aliases, measured = measures[kind](job, model, tokenizer, rows, settings)
        measured |= {"rows": len(rows), "settings": settings.model_dump(), "stored_tensors": len(tensors)}
        identity = {"kind": kind, "base": job.spec["base"], "domain": job.spec["domain"]}
        save_statistics(job.staging(kind if kind in job.outputs else "statistics"), tensors, identity | measured, aliases)
        facts[kind] = measured
    return {"base": job.spec["base"], "domain": job.spec["domain"], "kinds": facts}


def check_pairing(spec: dict[str, Any], specialist: Path, data: Path) -> None:
    """Refuse a specialist, or calibration rows, of another domain or base than the spec names.

    Raises:
        MergebenchError: with what was given and what was expected.
    """
    domain, base = spec["domain"], spec["base"]
    if data.parent.name != f"train_{domain}":
        raise MergebenchError(f"statistics for domain {domain} were given rows of {data.parent}; expected train_{domain}.")
    model = specialist.parent
    if model.name != f"specialist_{domain}" or model.parent.name != base:
        raise MergebenchError(f"statistics for domain {domain} of {base} were given {specialist}; expected {base}/specialist_{domain}.")
    manifest = model / MANIFEST
    trained_on = read_json(manifest).get("domains") if manifest.is_file() else None
    if trained_on not in (None, [domain]):
        raise MergebenchError(f"{manifest} says that the model was trained on {trained_on}; expected [{domain!r}].")


def _examples(job: Job, tokenizer: Any) -> list[Example]:
    calibration = job.spec.get("calibration", {})
    rows = read_rows(job.path("data").with_name("calibration.jsonl"), ("id", "prompt", "response"))
    return encode(tokenizer, rows[: calibration.get("rows")], calibration.get("max_length", 4096))


def _fisher(job: Job, model: Any, tokenizer: Any, rows: list[Example], settings: FisherSettings) -> Measured:
    fisher = Fisher(model, settings.labels, job.spec["seed"])
    fisher.add(rows, lambda done: job.progress(done, len(rows), "fisher: rows"))
    parameters = _bytes(model)
    memory = {"model": parameters, "gradients": parameters, "statistic": parameters}
    return fisher.result(), {}, {"tokens": sum(row.response_tokens for row in rows), "memory_bytes": memory}


def _gram(job: Job, model: Any, tokenizer: Any, rows: list[Example], settings: GramSettings) -> Measured:
    with Gram(model, tokenizer.pad_token_id, settings.accumulate) as gram:
        gram.add(rows, settings.batch_size, lambda done: job.progress(done, len(rows), "gram: rows"))
    tensors = gram.result()
    width = 8 if settings.accumulate == "float64" else 4
    memory = {"model": _bytes(model), "statistic": width * sum(matrix.numel() for matrix in tensors.values())}
    return tensors, gram.aliases, {"tokens": gram.tokens, "memory_bytes": memory}


def _mask(job: Job, model: Any, tokenizer: Any, rows: list[Example], settings: MaskSettings) -> Measured:
    parameters = dict(model.named_parameters())
    checkpoint = Checkpoint(job.path("base"))
    base = {name: checkpoint.tensor(name).to(p.device, torch.float32) for name, p in parameters.items()}
    covered = names_in_scope(checkpoint, job.spec.get("scope", ALL))
    task_vector = {name: parameters[name].detach() - base[name] for name in covered}
    masks, measured = train_mask(
        model,
        base,
        task_vector,
        rows,
        tokenizer.pad_token_id,
        **settings.model_dump(exclude={"rows"}),
        seed=job.spec["seed"],
        progress=lambda done: job.progress(done, settings.steps, "mask: steps"),
    )
    whole, part = _bytes(model), 4 * sum(tau.numel() for tau in task_vector.values())
    memory = {"model": whole, "base": whole, "gradients": part, "task_vector": part, "logits": part}
    facts = {name: round(value, 6) for name, value in measured.items()}
    return {name: mask.cpu() for name, mask in masks.items()}, {}, facts | {"memory_bytes": memory}


def _bytes(model: Any) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
