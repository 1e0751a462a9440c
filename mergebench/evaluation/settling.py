"""Score answers that a judge or the sandbox decides about; no language model that is scored takes part."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mergebench.errors import MergebenchError
from mergebench.evaluation import safety
from mergebench.evaluation.aggregate import Item
from mergebench.evaluation.clusters import cluster_of
from mergebench.evaluation.code import programs
from mergebench.evaluation.questions import Questions
from mergebench.evaluation.responses import Answers
from mergebench.evaluation.scoring import Record, record

Progress = Callable[[int, int, str], None]
Labels = Mapping[tuple[str, int], safety.Label]


def programs_run(
    questions: Questions, answers: Answers, *, workers: int, store: Path | None = None, progress: Progress | None = None
) -> Record:
    """Run the programs of the answers with their tests; the sandbox's facts go into the record.

    Args:
        questions: what was asked.
        answers: one or several per row.
        workers: programs that run at the same time.
        store: file that keeps verdicts, for a job that is killed.
        progress: called with done, total and what is being done.
    """
    started = time.monotonic()
    items = _items(questions, answers)
    setting, texts = questions.setting, answers.by_item()
    for item, doc in zip(items, questions.docs, strict=True):
        samples = [response.text for response in texts[item.id]]
        item.extra["programs"] = programs.prepare(setting.benchmark, doc, samples, setting.protocol)
    facts = programs.settle(
        items,
        timeout_seconds=float(questions.metadata["timeout_seconds"]),
        workers=workers,
        allow_weak=setting.allow_weak_sandbox,
        progress=progress,
        store=store,
    )
    return record(answers.record, questions.metadata, items, sandbox=facts, seconds=_since(started))


def labelled(questions: Questions, answers: Answers, labels: Labels, judge: Mapping[str, Any]) -> Record:
    """Score answers by the labels of a judge, whose facts (`judge`) go into the record."""
    started = time.monotonic()
    items = _items(questions, answers)
    setting = questions.setting
    judged = safety.settle(items, questions.docs, questions.rule, labels, setting.protocol, judge=dict(judge), benchmark=setting.benchmark)
    return record(answers.record, questions.metadata, items, judge=judged, seconds=_since(started))


def judged_here(questions: Questions, answers: Answers, judge: safety.Judge) -> Record:
    """Label answers with a judge of this process, and score them."""
    started = time.monotonic()
    items = _items(questions, answers)
    setting = questions.setting
    judged = safety.settle_with(judge, items, questions.docs, questions.rule, setting.protocol, benchmark=setting.benchmark)
    return record(answers.record, questions.metadata, items, judge=judged, seconds=_since(started))


def _items(questions: Questions, answers: Answers) -> list[Item]:
    """One item per row: its first answer, all of them under ``responses`` where there are several, and no outcome yet."""
    group = questions.metadata.get("group_by")
    given = answers.by_item()
    items = []
    for doc in questions.docs:
        found = given.get(str(doc["id"]))
        if found is None:
            raise MergebenchError(
                f"{questions.setting.benchmark}: row {doc['id']!r} was not answered; delete the file of answers, and the model is "
                "asked again."
            )
        texts = [response.text for response in found]
        several = {"responses": texts} if len(texts) > 1 else {}
        inside, cluster = str(doc[group]) if group else "", cluster_of(doc, questions.metadata)
        items.append(Item(str(doc["id"]), inside, math.nan, texts[0], several, cluster))
    return items


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)
