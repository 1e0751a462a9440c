"""Score a language model on benchmarks: lm-eval asks and filters, our scorers settle, one record per benchmark.

A `Suite` builds its tasks once. `Suite.evaluate` may then be called for one set of weights after another; requests of all
benchmarks go to the model together, so that short and long answers share batches.
"""

import hashlib
import importlib.metadata
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergebench.artifacts import read_json
from mergebench.errors import MergebenchError
from mergebench.evaluation import answers, bleu, instruction_following, mathematics, safety
from mergebench.evaluation.aggregate import AGGREGATES, Item
from mergebench.evaluation.code import programs
from mergebench.evaluation.local_tasks import LocalTask, load_task, sha256
from mergebench.evaluation.settings import BenchmarkSetting

if TYPE_CHECKING:
    import pandas
    from lm_eval.api.model import LM

Progress = Callable[[int, int, str], None]
Finished = Callable[[str, "Record"], None]

# Named by the task files, so imported here where the fingerprint of the stage's code can see them.
SCORERS = (answers, bleu, instruction_following, mathematics, programs, safety)
LIBRARIES = ("lm_eval", "transformers", "torch", "tokenizers", "sacrebleu", "math_verify", "langdetect")


@dataclass(frozen=True)
class Record:
    """The score of one benchmark: `summary` for JSON (all but base and model), `items` with a row per scored row."""

    summary: dict[str, Any]
    items: "pandas.DataFrame"

    @property
    def value(self) -> float:
        """The headline value in [0, 1]."""
        return float(self.summary["value"])


class Suite:
    """Benchmarks with their settings and rows, ready to score models.

    Args:
        settings: one per benchmark.
        rows: a folder with ``<benchmark>/rows.jsonl``, or the path of the rows of each benchmark.
        workers: model-written programs that run at the same time.
    """

    def __init__(self, settings: Sequence[BenchmarkSetting], rows: Path | Mapping[str, Path], *, workers: int = 1) -> None:
        self.settings = {setting.benchmark: setting for setting in settings}
        if len(self.settings) != len(settings):
            raise MergebenchError("a benchmark is named twice in one evaluation; give each one setting.")
        self.workers = workers
        self.rows = {name: _rows_of(rows, name) for name in self.settings}
        self.tasks = {name: load_task(setting, self.rows[name]) for name, setting in self.settings.items()}
        for name, setting in self.settings.items():
            if (setting.samples or 1) > 1 and not self.tasks[name].config.metadata.get("execute"):
                raise MergebenchError(f"{name}: samples is {setting.samples}, but only programs are scored over several samples.")
            if "judge_rule" in self.tasks[name].config.metadata:
                safety.judge(setting.judge)

    def evaluate(self, lm: "LM", progress: Progress | None = None, finished: Finished | None = None) -> dict[str, Record]:
        """Score a model on every benchmark, in the order of the settings.

        Args:
            lm: any lm-eval language model; see `language_models` for what ours promises besides.
            progress: called with done, total and what is being done.
            finished: called with the name and record of a benchmark as soon as it is scored.
        """
        if hasattr(lm, "progress"):
            lm.progress = progress
        records = {}
        for samples in self._ask(lm):
            for name, found in samples.items():
                record = self._record(name, found, lm, progress)
                records[name] = record
                if finished is not None:
                    finished(name, record)
        return {name: records[name] for name in self.settings}

    def _ask(self, lm: "LM") -> Iterator[dict[str, list[dict[str, Any]]]]:
        """lm-eval's samples by benchmark, one call for those with the chat template and one for those without."""
        from lm_eval.evaluator import evaluate

        logging.getLogger("lm_eval").setLevel(logging.CRITICAL)
        for templated in (False, True):
            tasks = {n: self.tasks[n] for n, s in self.settings.items() if s.apply_chat_template is templated}
            if not tasks:
                continue
            for cut in (_cut(lm, "truncated"), _cut(lm, "unfinished")):
                cut.clear()
            results = evaluate(
                lm,
                {"tasks": tasks, "groups": {}, "group_map": {}},
                bootstrap_iters=0,
                apply_chat_template=templated,
                fewshot_as_multiturn=False,
            )
            yield results["samples"]

    def _record(self, name: str, samples: list[dict[str, Any]], lm: "LM", progress: Progress | None) -> Record:
        setting, task = self.settings[name], self.tasks[name]
        metadata = task.config.metadata
        docs, items = _items(task, samples)
        judged = sandbox = None
        if metadata.get("execute"):
            sandbox = programs.settle(
                items,
                timeout_seconds=float(metadata["timeout_seconds"]),
                workers=self.workers,
                allow_weak=setting.allow_weak_sandbox,
                progress=progress,
            )
        if "judge_rule" in metadata:
            judged = safety.settle(items, docs, metadata["judge_rule"], setting.judge)
        scorable = [item for item in items if not math.isnan(item.outcome)]
        score = AGGREGATES[metadata["aggregate"]](scorable)
        if math.isnan(score.value):
            reason = next((item.extra["unscorable"] for item in items if "unscorable" in item.extra), "no row")
            raise MergebenchError(f"{name}: none of {len(items)} rows can be scored: {reason}.")
        contexts = {instance.doc_id: instance.args[0] for instance in task.instances}
        summary = {
            "benchmark": name,
            "domain": setting.entry["domain"],
            "role": setting.entry["role"],
            "metric": setting.entry["metric"],
            "value": score.value,
            "standard_error": score.standard_error,
            "n": score.n,
            "higher_is_better": True,
            "parts": score.parts,
            "settings": _settings(setting, task),
            "task_version": task.VERSION,
            "task_hash": _task_hash(samples),
            "data": {"rows_sha256": sha256(self.rows[name]), "source": _source(self.rows[name])},
            "judge": judged,
            "sandbox": sandbox,
            "unscorable": _unscorable(items),
            "truncated": {
                "prompts": sum(context in _cut(lm, "truncated") for context in contexts.values()),
                "answers": sum(context in _cut(lm, "unfinished") for context in contexts.values()),
            },
            "versions": versions(),
        }
        return Record(summary, _frame(items))


def evaluate(
    lm: "LM",
    settings: Sequence[BenchmarkSetting],
    data_root: Path | Mapping[str, Path],
    progress: Progress | None = None,
) -> dict[str, Record]:
    """Score a model once; see `Suite` for scoring several."""
    return Suite(settings, data_root).evaluate(lm, progress)


def _cut(lm: "LM", what: str) -> set[str]:
    """The contexts that a model had to cut (``truncated``) or whose answers hit the limit (``unfinished``), if it says so."""
    return getattr(lm, what, set())


def _rows_of(rows: Path | Mapping[str, Path], name: str) -> Path:
    if isinstance(rows, Path):
        return rows / name / "rows.jsonl"
    if name not in rows:
        raise MergebenchError(f"benchmark {name} has no rows among the inputs; add data/{name}/manifest.json.")
    return rows[name]


def _items(task: LocalTask, samples: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Item]]:
    """Documents and items in row order, from lm-eval's samples under the headline filter."""
    metadata = task.config.metadata
    headline, group = metadata["headline"], metadata.get("group_by")
    wanted = metadata.get("filter", samples[0]["filter"])
    docs, items = [], []
    others: dict[int, dict[str, Any]] = {}
    for sample in samples:
        if sample["filter"] != wanted:
            others.setdefault(sample["doc_id"], {})[f"{headline},{sample['filter']}"] = sample[headline]
    for sample in sorted((s for s in samples if s["filter"] == wanted), key=lambda s: s["doc_id"]):
        doc, found = sample["doc"], sample[headline]
        if isinstance(found, Mapping):
            detail = dict(found)
        else:
            detail = {"outcome": found, "response": _response(task, sample, headline)}
            detail |= {m: sample[m] for m in sample["metrics"] if m != headline}
            if task.OUTPUT_TYPE == "generate_until":
                detail["extracted"] = sample["filtered_resps"][0]
        items.append(
            Item(
                id=str(doc["id"]),
                group=str(doc[group]) if group else "",
                outcome=float(detail.pop("outcome")),
                response=detail.pop("response"),
                extra=detail | others.get(sample["doc_id"], {}),
            )
        )
        docs.append(doc)
    return docs, items


def _response(task: LocalTask, sample: dict[str, Any], headline: str) -> str:
    """The generated text, or the choice that the headline metric takes for the model's."""
    if task.OUTPUT_TYPE == "generate_until":
        return str(sample["resps"][0][0]).strip()
    choices = task.doc_to_choice(sample["doc"])
    scores = [score for score, _ in sample["filtered_resps"]]
    if headline == "acc_norm":
        scores = [score / max(1, len(choice)) for score, choice in zip(scores, choices, strict=True)]
    return choices[scores.index(max(scores))]


def _settings(setting: BenchmarkSetting, task: LocalTask) -> dict[str, Any]:
    """The settings that were in force, defaults filled in."""
    generation = task.config.generation_kwargs if task.OUTPUT_TYPE == "generate_until" else None
    return {
        "shots": task.config.num_fewshot,
        "formulation": task.config.metadata["formulation"],
        "apply_chat_template": setting.apply_chat_template,
        "limit": setting.limit,
        "samples": task.config.repeats,
        "generation": generation,
    }


def _task_hash(samples: list[dict[str, Any]]) -> str:
    """Digest over the documents, prompts and targets that were asked, as lm-eval's tracker forms it."""
    parts = sorted(f"{s['doc_hash']}{s['prompt_hash']}{s['target_hash']}" for s in samples)
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _source(rows: Path) -> str | None:
    """Where the rows come from (hub, local or tiny), by the manifest beside them."""
    manifest = rows.with_name("manifest.json")
    return read_json(manifest).get("source") if manifest.is_file() else None


def _unscorable(items: Sequence[Item]) -> dict[str, Any] | None:
    reasons = [item.extra.get("unscorable", "no outcome") for item in items if math.isnan(item.outcome)]
    return {"count": len(reasons), "reason": reasons[0]} if reasons else None


def _frame(items: Sequence[Item]) -> "pandas.DataFrame":
    import pandas

    return pandas.DataFrame(
        {
            "item": [item.id for item in items],
            "outcome": [item.outcome for item in items],
            "group": [item.group for item in items],
            "response": [item.response for item in items],
            "extra": [json.dumps(item.extra, ensure_ascii=False, sort_keys=True) for item in items],
        }
    )


@lru_cache(maxsize=1)
def _installed() -> tuple[tuple[str, str], ...]:
    found = []
    for library in LIBRARIES:
        try:
            found.append((library, importlib.metadata.version(library)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(found)


def versions() -> dict[str, str]:
    """Versions of the libraries that take part in a score."""
    return dict(_installed())
