"""`mergebench plan train`: what every model of a campaign costs to train, before anything starts.

Rows and tokens are those of the tokenised data where it is there, else estimates; the rest follows from the settings.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mergebench.artifacts import read_json
from mergebench.workflow.estimates import ASSUMPTIONS, CORE_ASSUMPTIONS
from mergebench.workflow.forecast_text import duration
from mergebench.workflow.plan import Plan
from mergebench.workflow.resources import Escalation, Resources, Site
from mergebench.workflow.storage import gigabytes

COLUMNS = ("base", "model", "by", "steps", "rows seen", "tokens seen", "GPUs", "GPU memory", "host memory", "hours", "GPU-hours", "disk")
NAMES = 3  # columns that hold words


def forecast(plan: Plan, site: Site) -> dict[str, Any]:
    """A row per model that is trained or imported, the totals, the assumptions, and what will not work."""
    resources = Resources(plan, site)
    models = list(_models(plan, resources))
    totals = {name: sum(model[name] for model in models) for name in ("gpu_hours", "written_bytes")}
    return {
        "preset": plan.name,
        "models": models,
        **totals,
        "saved_bytes": max((model["saved_bytes"] for model in models), default=0.0),
        "gpu_memory_gb": site.gpu_memory_gb,
        "assumptions": CORE_ASSUMPTIONS if all(map(resources.estimates.tiny, plan.bases)) else ASSUMPTIONS,
        "measured_tokens": sorted({training_set for key, training_set in plan.tokenised if _card(plan, key, training_set)}),
        "warnings": [
            f"{m['base']} {m['model']} needs about {gigabytes(m['gpu_bytes'])} on a GPU of {site.gpu_memory_gb} GB; change sharding, "
            "activation_checkpointing, micro_batch_size or max_length"
            for m in models
            if not m["fits"]
        ],
    }


def _models(plan: Plan, resources: Resources) -> Iterator[dict[str, Any]]:
    for rule, stage, wildcards in plan.jobs():
        if stage not in ("train", "import"):
            continue
        base, model = wildcards["base"], wildcards["model"]
        estimate = resources.estimates.of(stage, **wildcards)
        request = resources.request(estimate, Escalation())
        steps, rows, tokens = (0, 0, 0) if stage == "import" else _schedule(plan, resources, base, model)
        hours = resources.seconds(estimate) / 3600
        yield {
            "base": base,
            "model": model,
            "by": {"import_specialist": "import", "train_grpo": "GRPO"}.get(rule, "SFT"),
            "sharding": None if stage == "import" else resources.estimates.training_settings(base, model)["sharding"],
            "steps": steps,
            "rows": rows,
            "tokens": tokens,
            "gpus": request.gpu,
            "gpu_bytes": estimate.gpu_bytes / request.gpu + estimate.local_bytes if request.gpu else 0.0,
            "fits": resources.fits(estimate),
            "host_bytes": request.mem_mb * 1e6,
            "hours": hours,
            "gpu_hours": hours * request.gpu,
            "written_bytes": estimate.written,
            "saved_bytes": estimate.working,
        }


def _schedule(plan: Plan, resources: Resources, base: str, model: str) -> tuple[int, int, int]:
    """Steps, rows and tokens: the estimate, with the tokens per row that the finished data cards have."""
    steps, rows, tokens = resources.estimates.schedule(base, model)
    if plan.initial(base, model) != "sft_math":
        cards = [_card(plan, plan.tokens(base).key, f"train_{d}") for d in plan.training_domains(model)]
        if cards and all(cards):
            tokens = rows * sum(card["tokens"] for card in cards) / sum(card["rows"]["out"] for card in cards)
    return steps, int(rows), int(tokens)


def _card(plan: Plan, key: str, training_set: str) -> dict[str, Any]:
    path = Path(plan.results, "tokens", key, training_set, "card.json")
    return dict(read_json(path)) if path.is_file() else {}


def render(record: dict[str, Any]) -> str:
    """The forecast as text: a line per model, then totals and assumptions."""
    lines = [
        (
            model["base"],
            model["model"],
            model["by"] + (f", {model['sharding']}" if model["sharding"] not in (None, "none") else ""),
            f"{model['steps']:,}",
            f"{model['rows']:,}",
            f"{model['tokens'] / 1e6:,.1f} M",
            str(model["gpus"]),
            gigabytes(model["gpu_bytes"]) if model["gpus"] else "-",
            gigabytes(model["host_bytes"]),
            duration(model["hours"]),
            f"{model['gpu_hours']:,.1f}",
            gigabytes(model["written_bytes"]),
        )
        for model in record["models"]
    ]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *lines, strict=True)]
    table = ["  ".join(map(_cell, range(len(line)), line, widths)) for line in (COLUMNS, *lines)]
    measured = ", ".join(record["measured_tokens"])
    written, saved = gigabytes(record["written_bytes"]), gigabytes(record["saved_bytes"])
    tail = [
        "",
        f"in all: {record['gpu_hours']:,.1f} GPU-hours; {written} of models stay; the largest saved states take {saved}",
        f"assumed: {record['assumptions']}; 16 bytes per trained parameter, adapters 2 % of the parameters",
        *([f"tokens counted, not estimated, for {measured}"] if measured else []),
        *(f"warning: {sentence}" for sentence in record["warnings"]),
    ]
    return "\n".join(line.rstrip() for line in [*table, *tail])


def _cell(column: int, text: str, width: int) -> str:
    """Names to the left, numbers to the right."""
    return text.ljust(width) if column < NAMES else text.rjust(width)
