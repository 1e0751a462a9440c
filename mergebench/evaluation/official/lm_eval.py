"""lm-eval's result file: its task names, its keys ``"{metric},{filter}"``, and the tables that leaderboards read.

A benchmark of ours that has several languages or subjects becomes the tasks that lm-eval has for them. Values are lm-eval's, computed
from the items: BLEU and SQuAD's scores in percent, everything else in [0, 1].
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergebench.errors import MergebenchError
from mergebench.evaluation.aggregate import mean_of
from mergebench.evaluation.official.scores import OfficialScore, document
from mergebench.evaluation.scoring import Record

Values = Callable[[float, Mapping[str, Any]], Any]


def _outcome(outcome: float, extra: Mapping[str, Any]) -> float:
    return outcome


def _kept(key: str) -> Values:
    return lambda outcome, extra: extra[key]


@dataclass(frozen=True)
class Metric:
    """One key of a task: what of an item it is the mean of.

    Attributes:
        name: lm-eval's metric.
        of: an item's outcome and what is kept of it, to a number or, for a mean over more than items, a list of numbers.
        filter: lm-eval's filter.
        scale: 100 where lm-eval prints percent.
        total: from the numbers of all items, where it is not their mean.
        higher: whether more is better.
    """

    name: str
    of: Values = _outcome
    filter: str = "none"
    scale: float = 1.0
    total: Callable[[Sequence[float]], float] | None = None
    higher: bool = True

    @property
    def key(self) -> str:
        return f"{self.name},{self.filter}"


@dataclass(frozen=True)
class Task:
    """A benchmark's place among lm-eval's tasks; `name` holds ``{part}`` where each group of items is a task."""

    name: str
    metrics: tuple[Metric, ...]
    group: str | None = None
    parts: Mapping[str, str] | None = None

    def part(self, group: str) -> str:
        """The task of a group of items, such as a language or a subject."""
        return self.name.format(part=(self.parts or {}).get(group, group.replace(" ", "_")))


def _perplexity(logprobs: Sequence[float]) -> float:
    return math.exp(-sum(logprobs) / len(logprobs))


ACC = Metric("acc")
WITH_NORM = (Metric("acc", _kept("acc")), Metric("acc_norm"))
IFEVAL = (
    Metric("prompt_level_strict_acc"),
    Metric("inst_level_strict_acc", _kept("instructions")),
    Metric("prompt_level_loose_acc", _kept("loose")),
    Metric("inst_level_loose_acc", _kept("instructions_loose")),
)
SUBJECTS = {
    "Algebra": "algebra",
    "Counting & Probability": "counting_and_prob",
    "Geometry": "geometry",
    "Intermediate Algebra": "intermediate_algebra",
    "Number Theory": "num_theory",
    "Prealgebra": "prealgebra",
    "Precalculus": "precalc",
}
HENDRYCKS = Metric("exact_match", lambda outcome, extra: extra.get("exact_match_hendrycks", outcome))
SQUAD = (Metric("best_f1", scale=100), Metric("f1", _kept("f1"), scale=100), Metric("exact", _kept("exact"), scale=100))

# lm-eval's own extractor first; ours and math_verify under names of their own.
MATH = (
    HENDRYCKS,
    Metric("equivalent"),
    Metric("math_verify", _kept("math_verify")),
    Metric("exact_match_boxed", _kept("exact_match_boxed")),
)
TASKS: dict[str, Task] = {
    "ifeval": Task("ifeval", IFEVAL),
    "ifeval_like": Task("ifeval_like", IFEVAL),
    "gsm8k": Task(
        "gsm8k_cot",
        tuple(Metric("exact_match", _kept(f"exact_match,{name}"), name) for name in ("strict-match", "flexible-extract")),
    ),
    "math": Task("hendrycks_math_{part}", MATH, group="hendrycks_math", parts=SUBJECTS),
    "m_mmlu": Task("m_mmlu_{part}", (ACC,)),
    "m_arc": Task("arc_{part}", WITH_NORM),
    "m_hellaswag": Task("hellaswag_{part}", WITH_NORM),
    "pud_prose": Task("pud_prose_{part}", WITH_NORM),
    "mmlu": Task("mmlu_{part}", (ACC,), group="mmlu"),
    "mmlu_stem": Task("mmlu_{part}", (ACC,), group="mmlu_stem"),
    "triviaqa": Task("triviaqa", (Metric("exact_match", filter="remove_whitespace"),)),
    "squadv2": Task("squadv2", SQUAD),
    "coqa": Task("coqa", (Metric("em", _kept("exact")), Metric("f1"))),
    "pubmedqa": Task("pubmedqa", (ACC,)),
    "wmt14": Task("wmt14-fr-en", (Metric("bleu", scale=100),)),
    "lambada": Task("lambada_openai", (ACC, Metric("perplexity", _kept("logprob"), total=_perplexity, higher=False))),
}
# Values of the whole benchmark that are no mean over items: taken from the record.
CORPUS = {("wmt14", "bleu"), ("squadv2", "best_f1")}


def write(records: Sequence[Record]) -> dict[str, Any]:
    """lm-eval's result file of one model; benchmarks that lm-eval does not score are left out, and no record gives an empty object."""
    chosen = [record for record in records if record.benchmark in TASKS]
    if not chosen:
        return {}
    written: dict[str, Any] = {
        key: {}
        for key in (
            "results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "task_hashes",
        )
    }  # fmt: skip
    for record in chosen:
        _add(record, written)
    if not written["groups"]:
        del written["groups"]
    return {**written, **_about(chosen)}


def _add(record: Record, written: dict[str, Any]) -> None:
    task = TASKS[record.benchmark]
    metrics = _present(record, task)
    groups = list(record.items["group"])
    rows = list(zip(record.items["outcome"], record.extras(), groups, strict=True))
    names = {task.part(group): group for group in dict.fromkeys(groups)} if "{part}" in task.name else {task.name: None}
    for name, group in names.items():
        if name in written["results"]:  # MMLU's STEM subjects are also tasks of MMLU
            written["group_subtasks"].setdefault(task.group or name, []).append(name)
            continue
        mine = [(outcome, extra) for outcome, extra, of in rows if group is None or of == group]
        _result(written, name, f" - {name}" if task.group else name, metrics, mine, record)
        written["group_subtasks"].setdefault(task.group or name, [])
        if task.group:
            written["group_subtasks"][task.group].append(name)
        written["configs"][name] = _config(record, name)
        written["n-shot"][name] = record.summary["settings"]["shots"]
        written["task_hashes"][name] = record.summary["task_hash"]
    if task.group:
        _result(written, task.group, task.group, metrics, [(outcome, extra) for outcome, extra, _ in rows], record)
        written["groups"][task.group] = written["results"][task.group]
        # lm-eval counts the items of a group by its tasks only.
        del written["n-samples"][task.group]


def _present(record: Record, task: Task) -> list[Metric]:
    """The metrics whose numbers the items have; the released protocol of MATH keeps only lm-eval's own."""
    return [HENDRYCKS] if record.summary["metric"] == "exact_match" and record.benchmark == "math" else list(task.metrics)


def _result(
    written: dict[str, Any],
    name: str,
    alias: str,
    metrics: Sequence[Metric],
    rows: Sequence[tuple[float, Mapping[str, Any]]],
    record: Record,
) -> None:
    scored = [(outcome, extra) for outcome, extra in rows if not math.isnan(outcome)]
    found: dict[str, Any] = {"alias": alias}
    for metric in metrics:
        value, error = _value(metric, scored, record)
        found[metric.key] = value
        found[f"{metric.name}_stderr,{metric.filter}"] = "N/A" if error is None else error
    written["results"][name] = found
    written["versions"][name] = record.summary["task_version"]
    written["higher_is_better"][name] = {metric.name: metric.higher for metric in metrics}
    written["n-samples"][name] = {"original": len(rows), "effective": len(scored)}


def _value(metric: Metric, scored: Sequence[tuple[float, Mapping[str, Any]]], record: Record) -> tuple[float, float | None]:
    if (record.benchmark, metric.name) in CORPUS:
        error = record.summary["standard_error"]
        return metric.scale * record.summary["value"], None if error is None else metric.scale * error
    numbers = [metric.of(outcome, extra) for outcome, extra in scored]
    if metric.total is not None:
        return metric.total(numbers), None
    if any(isinstance(number, list) for number in numbers):
        # Instructions of one prompt are not independent: lm-eval gives no error.
        return mean_of([float(hit) for hits in numbers for hit in hits])[0], None
    value, error = mean_of([float(number) for number in numbers])
    return metric.scale * value, None if error is None else metric.scale * error


def _config(record: Record, name: str) -> dict[str, Any]:
    settings, summary = record.summary["settings"], record.summary
    return {
        "task": name,
        "dataset_path": (summary.get("data") or {}).get("source"),
        "num_fewshot": settings["shots"],
        "repeats": settings["samples"],
        "generation_kwargs": settings["generation"],
        "metadata": {
            "version": summary["task_version"],
            "benchmark": record.benchmark,
            "protocol": settings.get("protocol"),
            "formulation": settings["formulation"],
        },
    }


def _about(records: Sequence[Record]) -> dict[str, Any]:
    """What lm-eval says of the run. There are no dates: the same scores give the same file."""
    first = records[0].summary
    backend, versions = first.get("backend") or {}, first.get("versions") or {}
    name = "/".join(str(first.get(key)) for key in ("base", "model"))
    templates = {record.summary.get("chat_template_sha256") for record in records if record.summary["settings"]["apply_chat_template"]}
    return {
        "config": {
            "model": backend.get("backend"),
            "model_args": {"dtype": backend.get("dtype"), "weights_digest": first.get("weights_digest")},
            "batch_size": "auto",
            "device": backend.get("device"),
            "use_cache": None,
            "limit": first["settings"]["limit"],
            "bootstrap_iters": 0,
            "gen_kwargs": None,
        },
        "git_hash": None,
        "date": None,
        "transformers_version": versions.get("transformers"),
        "lm_eval_version": versions.get("lm_eval"),
        "upper_git_hash": None,
        "max_length": backend.get("max_length"),
        "model_source": backend.get("backend"),
        "model_name": name,
        "model_name_sanitized": name.replace("/", "__"),
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": False,
        "chat_template": None,
        "chat_template_sha": templates.pop() if len(templates) == 1 else None,
        "total_evaluation_time_seconds": str(
            round(sum((record.summary.get("seconds") or {}).get("asked") or 0.0 for record in records), 3)
        ),
    }


def read(path: Path) -> list[OfficialScore]:
    """Every number of a result file of lm-eval: published, ours, or of another run; standard errors are left out.

    Raises:
        MergebenchError: the file is not one.
    """
    found = document(path)
    results = found.get("results")
    if not isinstance(results, dict) or not all(isinstance(values, dict) for values in results.values()):
        raise MergebenchError(f"{path} has no `results` by task; a result file of lm-eval was expected.")
    counts = {task: entry["effective"] for task, entry in found.get("n-samples", {}).items()}
    subtasks: dict[str, list[str]] = found.get("group_subtasks", {})
    scores = []
    for task, values in results.items():
        below = [name for name in subtasks.get(task, []) if name in results]
        n = counts.get(task) or sum(counts.get(name, 0) for name in below) or None
        for key, value in values.items():
            # A standard error may be the text "N/A", and some versions write counts beside the metrics.
            if "," in key and "_stderr," not in key and isinstance(value, (int, float)) and not isinstance(value, bool):
                parts = {name: float(results[name][key]) for name in below if isinstance(results[name].get(key), (int, float))}
                scores.append(OfficialScore(task, key, float(value), n, parts))
    return scores
