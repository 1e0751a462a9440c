"""What a benchmark asks of a model, in requests and tokens: as lm-eval asks it, and as our backends do.

Arithmetic on the catalogue (`benchmarks.yaml`, `lengths.yaml`) and the settings of a preset; no model and no data are read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mergebench import catalogue
from mergebench.config import Preset
from mergebench.workflow.task_files import generation

REFERENCE = 8_000_000_000  # parameters of the model whose run times decide which benchmarks share a job


# Lengths of a benchmark that `lengths.yaml` does not know.
ANSWERED = {"prompt": 200, "shot": 200, "answer": 200}
CHOSEN = {"prompt": 200, "shot": 200, "choices": 4, "choice": 20}


@dataclass(frozen=True)
class Questions:
    """The requests of one benchmark.

    Attributes:
        rows: rows that are scored.
        requests: prompts and continuations that lm-eval sends.
        passes: forward passes over a prompt that ours needs: one per row where choices are single tokens or share their context.
        read_lm_eval: tokens that lm-eval's way reads; one prompt per choice and per sample.
        read: tokens that the transformers backend reads: the context of a row once for all its continuations and samples.
        read_shared: tokens that the vLLM backend reads: worked examples once for all rows besides.
        most: tokens that may be generated, all answers as long as their limit.
        expected: tokens that answers of their usual length have.
        limit: most tokens of one answer; 0 where nothing is generated.
        prompt: tokens of one prompt, worked examples included.
    """

    rows: int
    requests: int
    passes: int
    read_lm_eval: int
    read: int
    read_shared: int
    most: int
    expected: int
    limit: int
    prompt: int

    @property
    def answers(self) -> int:
        """Answers that are generated."""
        return self.most // self.limit if self.limit else 0


def questions(preset: Preset, benchmark: str, *, rows: int | None = None, prompt: float | None = None) -> Questions:
    """What a preset asks of a model with one benchmark.

    Args:
        preset: its settings (shots, limits, samples) count.
        benchmark: its name in the catalogue.
        rows: rows that are scored (default: the catalogue's, within the preset's limits).
        prompt: mean tokens of a whole prompt (default: the catalogue's).
    """
    entry, evaluation = catalogue.benchmarks()[benchmark], preset.evaluation
    length = catalogue.lengths().get(benchmark, ANSWERED if entry["generation"] else CHOSEN)
    own = evaluation.benchmarks.get(benchmark)
    rows = scored_rows(preset, benchmark) if rows is None else rows
    shots = next(s for s in (own.shots if own else None, evaluation.shots, entry["shots"]) if s is not None)
    shared = shots * length.get("shot", 0)
    whole = shared + length["prompt"] if prompt is None else prompt
    repeats, most = generation(benchmark, evaluation.protocol)
    samples = (own.samples if own else None) or repeats
    choices, choice = length.get("choices", 0), length.get("choice", 0)
    single = length.get("single", False) and evaluation.formulation == "mcf"
    answered = entry["generation"] is not None
    limit = 0
    if answered:
        limits = [most or entry["generation"]["max_tokens"], evaluation.max_tokens, own.max_tokens if own else None]
        limit = min(limit for limit in limits if limit)
    sent = samples * answered + choices
    continued = 0 if single else choices * choice
    return Questions(
        rows=rows,
        requests=rows * sent,
        passes=rows * (1 if single or not choices else choices) + (rows if answered and choices else 0),
        read_lm_eval=round(rows * (sent * whole + choices * choice)),
        read=round(rows * (whole + continued)),
        read_shared=round(shared + rows * (max(whole - shared, 0) + continued)),
        most=rows * samples * limit if answered else 0,
        expected=rows * samples * min(limit, length.get("answer", 0)) if answered else 0,
        limit=limit,
        prompt=math.ceil(whole),
    )


def scored_rows(preset: Preset, benchmark: str) -> int:
    """Rows of a benchmark that a preset scores."""
    rows = int(catalogue.benchmarks()[benchmark]["rows"])
    limit = preset.data.limits.get(benchmark, preset.data.limit)
    return min(rows, limit) if limit else rows


def similar(costs: dict[str, float]) -> list[list[str]]:
    """Benchmarks in as few groups as have room for them, none more costly than the costliest benchmark; in their first order.

    First fit by falling cost: at most 11/9 of the fewest groups possible, and one (Johnson 1973).
    """
    if not costs:
        return []
    room = max(costs.values())
    groups: list[tuple[float, list[str]]] = []
    for name in sorted(costs, key=lambda name: -costs[name]):
        place = next((i for i, (used, _) in enumerate(groups) if used + costs[name] <= room * (1 + 1e-9)), None)
        if place is None:
            groups.append((costs[name], [name]))
        else:
            used, names = groups[place]
            groups[place] = (used + costs[name], [*names, name])
    order = list(costs)
    return [sorted(names, key=order.index) for _, names in groups]


def names_of(groups: Sequence[Sequence[str]], name: str) -> list[str]:
    """What to call groups: by their place, and by `name` alone where there is one."""
    return [name] if len(groups) == 1 else [f"{name}_{number}" for number in range(1, len(groups) + 1)]
