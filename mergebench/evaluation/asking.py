"""Ask a language model everything: lm-eval builds the prompts, one call submits the requests of all benchmarks.

What comes back is, per benchmark, a score, or, where a judge or a sandbox decides (`metadata.defer` of its task), the
answers. Neither a judge nor the sandbox is part of this module: who changes those asks no model again.
"""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergebench.artifacts import read_json
from mergebench.errors import MergebenchError
from mergebench.evaluation import answers, bleu, instruction_following, mathematics
from mergebench.evaluation.aggregate import Item
from mergebench.evaluation.clusters import cluster_of
from mergebench.evaluation.local_tasks import LocalTask, load_task, sha256
from mergebench.evaluation.questions import Questions
from mergebench.evaluation.responses import CUT, STOPPED, Answers, Response
from mergebench.evaluation.scoring import Record, record, versions
from mergebench.evaluation.settings import BenchmarkSetting

if TYPE_CHECKING:
    from lm_eval.api.model import LM

Progress = Callable[[int, int, str], None]
Result = Record | Answers
Finished = Callable[[str, Result], None]
Samples = list[dict[str, Any]]

# Named by the task files, so imported here where the fingerprint of the stage's code can see them.
SCORERS = (answers, bleu, instruction_following, mathematics)


class Asking:
    """Benchmarks with their settings and rows, ready to be asked of models.

    Args:
        settings: one per benchmark.
        rows: a folder with ``<benchmark>/rows.jsonl``, or the path of the rows of each benchmark.
        most_cut: refuse a benchmark of whose prompts more than this share does not fit the model.
    """

    def __init__(self, settings: Sequence[BenchmarkSetting], rows: Path | Mapping[str, Path], *, most_cut: float = 1.0) -> None:
        self.settings = {setting.benchmark: setting for setting in settings}
        if len(self.settings) != len(settings):
            raise MergebenchError("a benchmark is named twice in one evaluation; give each one setting.")
        self.most_cut = most_cut
        self.rows = {name: _rows_of(rows, name) for name in self.settings}
        self.tasks = {name: load_task(setting, self.rows[name]) for name, setting in self.settings.items()}
        for path in self.rows.values():
            instruction_following.use_sentence_models(path)
        for name, setting in self.settings.items():
            if (setting.samples or 1) > 1 and not self.deferred(name):
                raise MergebenchError(
                    f"{name}: samples is {setting.samples}, but only programs and answers to safety prompts are scored over several."
                )

    def deferred(self, name: str) -> str | None:
        """What scores the answers to a benchmark later: ``code`` (the sandbox) or ``safety`` (a judge); None: nothing."""
        kind: str | None = self.tasks[name].config.metadata.get("defer")
        return kind

    def questions(self, name: str) -> Questions:
        """What a deferred benchmark asks, for those who score its answers."""
        task = self.tasks[name]
        return Questions(self.settings[name], list(task.eval_docs), task.config.metadata)

    def ask(self, lm: "LM", progress: Progress | None = None, finished: Finished | None = None) -> dict[str, Result]:
        """Ask a model every benchmark; a score or the answers of each, in the order of the settings.

        Args:
            lm: any lm-eval language model; `backends` says what ours promise besides.
            progress: called with done, total and what is being done.
            finished: called with the name and result of a benchmark as soon as it is there.

        Raises:
            MergebenchError: after all others were handed to `finished`, a benchmark has no scorable row, or too many of its prompts
                do not fit the model.
        """
        if hasattr(lm, "progress"):
            lm.progress = progress
        results: dict[str, Result] = {}
        refused: list[MergebenchError] = []
        for samples, seconds in self._samples(lm):
            for name, found in samples.items():
                try:
                    results[name] = self._result(name, found, seconds[name], lm)
                except MergebenchError as error:
                    refused.append(error)
                    continue
                if finished is not None:
                    finished(name, results[name])
        if refused:
            raise refused[0]
        return {name: results[name] for name in self.settings}

    def _samples(self, lm: "LM") -> Iterator[tuple[dict[str, Samples], dict[str, float]]]:
        """lm-eval's samples by benchmark, and the seconds of each: one call for those with the chat template and one for the rest."""
        from lm_eval.evaluator import evaluate

        logging.getLogger("lm_eval").setLevel(logging.CRITICAL)
        for templated in (False, True):
            tasks = {n: _unscored(self.tasks[n]) for n, s in self.settings.items() if s.apply_chat_template is templated}
            if not tasks:
                continue
            for cut in (_cut(lm, "truncated"), _cut(lm, "unfinished")):
                cut.clear()
            started = time.monotonic()
            results = evaluate(
                lm,
                {"tasks": tasks, "groups": {}, "group_map": {}},
                bootstrap_iters=0,
                apply_chat_template=templated,
                fewshot_as_multiturn=False,
            )
            yield results["samples"], _shares(results["samples"], time.monotonic() - started)

    def _result(self, name: str, samples: Samples, seconds: float, lm: "LM") -> Result:
        task = self.tasks[name]
        contexts = {instance.doc_id: instance.args[0] for instance in task.instances}
        cut = sum(context in _cut(lm, "truncated") for context in contexts.values())
        if cut > self.most_cut * len(contexts):
            raise MergebenchError(
                f"{name}: {cut} of {len(contexts)} prompts are longer than the model's {getattr(lm, 'max_length', '?')} tokens leave room "
                f"for and were cut, more than the share {self.most_cut:g} that evaluation.most_cut allows; lower shots or max_tokens."
            )
        if not self.deferred(name):
            items = _items(task, samples)
            empty = sum(not item.response.strip() for item in items) if task.OUTPUT_TYPE == "generate_until" else None
            asked = self._asked(name, samples, contexts, cut, empty, seconds, lm)
            return record(asked, task.config.metadata, items)
        responses = _responses(samples, contexts, lm)
        empty = sum(not response.text.strip() for response in responses)
        return Answers(self._asked(name, samples, contexts, cut, empty, seconds, lm), responses)

    def _asked(
        self, name: str, samples: Samples, contexts: Mapping[int, str], cut: int, empty: int | None, seconds: float, lm: "LM"
    ) -> dict[str, Any]:
        """All of a score record that is known before the answers are scored."""
        setting, task = self.settings[name], self.tasks[name]
        facts = dict(lm.facts()) if hasattr(lm, "facts") else {"backend": type(lm).__name__}
        return {
            "benchmark": name,
            "domain": setting.entry["domain"],
            "role": setting.entry["role"],
            "metric": task.config.metadata["headline"],
            "direction": setting.entry["direction"],
            "higher_is_better": True,
            "settings": _settings(setting, task),
            "task_version": task.VERSION,
            "task_hash": _task_hash(samples),
            "data": _data(self.rows[name]),
            "chat_template_sha256": facts.pop("chat_template_sha256", None),
            "bos": facts.pop("bos", None),
            "backend": facts,
            "truncated": {"prompts": cut, "answers": sum(context in _cut(lm, "unfinished") for context in contexts.values())},
            "empty_responses": empty,
            "seconds": {"asked": round(seconds, 3)},
            "versions": versions(),
        }


def _unscored(task: LocalTask) -> LocalTask:
    """A deferred task without its scorer: its answers are taken as they are."""
    metadata = task.config.metadata
    if metadata.get("defer"):
        headline = metadata["headline"]
        task.config.process_results = lambda doc, results: {headline: math.nan}
    return task


def _cut(lm: "LM", what: str) -> set[str]:
    """The contexts that a model had to cut (``truncated``) or whose answers hit the limit (``unfinished``), if it says so."""
    return getattr(lm, what, set())


def _shares(samples: Mapping[str, Samples], seconds: float) -> dict[str, float]:
    """The seconds of one call, divided over its benchmarks by the characters that were read and written."""
    sizes = {name: 1 + sum(_size(sample["arguments"]) + _size(sample["resps"]) for sample in found) for name, found in samples.items()}
    total = sum(sizes.values())
    return {name: seconds * size / total for name, size in sizes.items()}


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return sum(map(_size, value)) if isinstance(value, list | tuple) else 0


def _responses(samples: Samples, contexts: Mapping[int, str], lm: "LM") -> tuple[Response, ...]:
    """The raw answers in the order of the rows. Which of several answers to a prompt was cut is not known."""
    found = []
    one_filter = samples[0]["filter"]
    for sample in sorted((s for s in samples if s["filter"] == one_filter), key=lambda s: s["doc_id"]):
        texts = sample["resps"][0]
        finish = None
        if hasattr(lm, "unfinished"):
            cut = contexts[sample["doc_id"]] in lm.unfinished
            finish = STOPPED if not cut else CUT if len(texts) == 1 else None
        for number, text in enumerate(texts):
            tokens = len(lm.tok_encode(text, add_special_tokens=False)) if hasattr(lm, "tok_encode") else None
            found.append(Response(str(sample["doc"]["id"]), number, text, finish, tokens))
    return tuple(found)


def _rows_of(rows: Path | Mapping[str, Path], name: str) -> Path:
    if isinstance(rows, Path):
        return rows / name / "rows.jsonl"
    if name not in rows:
        raise MergebenchError(f"benchmark {name} has no rows among the inputs; add data/{name}/manifest.json.")
    return rows[name]


def _items(task: LocalTask, samples: Samples) -> list[Item]:
    """Items in row order, from lm-eval's samples under the headline filter."""
    metadata = task.config.metadata
    headline, group = metadata["headline"], metadata.get("group_by")
    wanted = metadata.get("filter", samples[0]["filter"])
    items = []
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
                cluster=cluster_of(doc, metadata),
            )
        )
    return items


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
    metadata = task.config.metadata
    generation = task.config.generation_kwargs if task.OUTPUT_TYPE == "generate_until" else None
    return {
        "protocol": setting.protocol,
        "shots": task.config.num_fewshot,
        "formulation": metadata["formulation"],
        "apply_chat_template": setting.apply_chat_template,
        "limit": setting.limit,
        "samples": task.config.repeats,
        "generation": generation,
    }


def _task_hash(samples: Samples) -> str:
    """Digest over the documents, prompts and targets that were asked, as lm-eval's tracker forms it."""
    parts = sorted(f"{s['doc_hash']}{s['prompt_hash']}{s['target_hash']}" for s in samples)
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _data(rows: Path) -> dict[str, Any]:
    """What the rows are: their digest, and by the manifest beside them their source and its revisions."""
    manifest = rows.with_name("manifest.json")
    known = read_json(manifest) if manifest.is_file() else {}
    return {"rows_sha256": sha256(rows), "source": known.get("source"), "revisions": known.get("revisions") or None}
