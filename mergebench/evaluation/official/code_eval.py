"""bigcode-evaluation-harness' metrics file: pass@k of HumanEval+ and MBPP+, BLEU of CoNaLa, and the settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mergebench.errors import MergebenchError
from mergebench.evaluation.aggregate import mean_of
from mergebench.evaluation.code.programs import pass_at_k
from mergebench.evaluation.official.scores import OfficialScore, document
from mergebench.evaluation.scoring import Record

PROGRAMS = ("humanevalplus", "mbppplus")
SNIPPETS = ("conala",)
# Those that the harness computes, where there are as many samples.
KS = (1, 10, 100)


def write(records: Sequence[Record]) -> dict[str, Any]:
    """The metrics file of one model; no record of a coding benchmark gives an empty object."""
    chosen = [record for record in records if record.benchmark in PROGRAMS + SNIPPETS]
    if not chosen:
        return {}
    return {**{record.benchmark: _metrics(record) for record in chosen}, "config": _config(chosen)}


def _metrics(record: Record) -> dict[str, float]:
    if record.benchmark in SNIPPETS:
        return {"bleu": float(record.summary["value"])}
    passed = [extra["passed"] for extra in record.extras()]
    samples = min(map(len, passed))
    return {f"pass@{k}": mean_of([pass_at_k(len(hits), sum(hits), k) for hits in passed])[0] for k in KS if k <= samples}


def _config(records: Sequence[Record]) -> dict[str, Any]:
    """The harness' names for the settings; a list, in the order of `tasks`, where its tasks differ."""
    first = records[0].summary
    generation = [record.summary["settings"]["generation"] or {} for record in records]

    def each(values: list[Any]) -> Any:
        return values[0] if all(value == values[0] for value in values) else values

    return {
        "prefix": "",
        "do_sample": each([bool(settings.get("do_sample")) for settings in generation]),
        "temperature": each([settings.get("temperature", 0.0) for settings in generation]),
        "top_k": 0,
        "top_p": each([settings.get("top_p", 1.0) for settings in generation]),
        "n_samples": each([record.summary["settings"]["samples"] for record in records]),
        "seed": (first.get("backend") or {}).get("seed"),
        "model": "/".join(str(first.get(key)) for key in ("base", "model")),
        "modeltype": "causal",
        "tasks": ",".join(record.benchmark for record in records),
        # bigcode counts the prompt in; null where only generated tokens are limited.
        "max_length_generation": each([settings.get("max_total_toks") for settings in generation]),
        "max_new_tokens": each([settings.get("max_gen_toks") for settings in generation]),
        "precision": (first.get("backend") or {}).get("dtype"),
        "limit": first["settings"]["limit"],
        "postprocess": True,
        "allow_code_execution": True,
        "protocol": first["settings"].get("protocol"),
    }


def read(path: Path) -> list[OfficialScore]:
    """Every metric of a metrics file, published or ours.

    Raises:
        MergebenchError: the file is not one.
    """
    tasks = {name: values for name, values in document(path).items() if name != "config"}
    if not tasks or not all(isinstance(values, dict) for values in tasks.values()):
        raise MergebenchError(f"{path} has no metrics by task beside `config`; a metrics file of bigcode-evaluation-harness was expected.")
    return [
        OfficialScore(task, metric, float(value))
        for task, values in tasks.items()
        for metric, value in values.items()
        if isinstance(value, (int, float))
    ]
