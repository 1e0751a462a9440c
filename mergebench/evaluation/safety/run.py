"""The judge stage: label the answers of many models to safety prompts with one judge, started at most once.

Specification: ``base``, ``judge``, and for a judge that is a model ``backend``, ``dtype`` and optionally ``max_length``,
``batch_tokens`` and ``gpu_memory``; ``max_parse_errors`` (0.1) is the share of the judge's answers that may be unreadable. Inputs:
``answers`` (records, with the table beside each), ``data`` (manifests, with ``rows.jsonl`` beside each) and ``weights`` (the judge's
folder). Outputs: for each record of answers, a Parquet file ``.../<model>/<benchmark>.parquet`` of labels, with the judge's facts
in its metadata.

Equal answers to equal requests are judged once, whichever models and benchmarks they come from. Labels are kept beside
the job's state as they are made: a job that was killed, or that is given more answers, judges only what is new, and a judge
is not started for nothing.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mergebench.artifacts import Job, sha256_file
from mergebench.errors import MergebenchError
from mergebench.evaluation import responses
from mergebench.evaluation.safety.judges import create
from mergebench.evaluation.safety.labels import Judge, Key, Label, Request, request_of, write_labels
from mergebench.evaluation.safety.remembering import Check, Remembering

MAX_PARSE_ERRORS = 0.1
FEWEST = 20
"""Of fewer labels no share is taken."""


def run(job: Job) -> dict[str, Any]:
    """Label all answers; returns the judge's facts, and counts of answers, distinct ones, parse errors, and empty and cut ones."""
    rows = {manifest.parent.name: manifest.with_name("rows.jsonl") for manifest in job.paths("data")}
    outputs = {(path.parent.name, path.stem): name for name, path in job.outputs.items() if path.suffix == ".parquet"}
    asked: dict[str, dict[Key, Request]] = {}
    for record in job.paths("answers"):
        answers = responses.read(record)
        name = outputs.get((str(answers.record["model"]), str(answers.record["benchmark"])))
        if name is None:
            raise MergebenchError(f"{record}: no output for its labels; expected one called <model>/<benchmark>.parquet.")
        asked[name] = dict(_requests(answers, record, rows))
    requests = [request for own in asked.values() for request in own.values()]
    judge = _judge(job)
    with job.timing("judging"):
        try:
            labels = iter(judge.judge(requests))
        finally:
            judge.close()
    counts: Counter[str] = Counter(answers=len(requests), distinct=len(set(requests)), duplicates=len(requests) - len(set(requests)))
    for name, own in asked.items():
        found = {key: next(labels) for key in own}
        for label in found.values():
            counts.update(parse_errors=label.parse_error, empty=label.empty, cut=label.cut)
        # Nothing about other models, whose coming and going must not change the file.
        facts = {"engines": judge.engines(own.values()), "duplicates": len(own) - len(set(own.values()))}
        write_labels(job.staging(name), found, {**judge.facts(), **facts})
    print(f"[{job.stage}] " + ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in counts.items()), file=sys.stderr)
    return {"judge": judge.facts(), "counts": dict(counts)}


def _judge(job: Job) -> Remembering:
    """The judge of a job, with the labels that it has made for any model of the base."""
    settings = {key: job.spec[key] for key in ("backend", "dtype", "max_length", "batch_tokens", "gpu_memory") if key in job.spec}
    weights = job.path("weights") if job.paths("weights") else None
    judge = create(job.spec["judge"], weights=weights, **settings)
    folder = job.state.parent / "labels" / job.spec["base"]
    return Remembering(judge, folder, progress=job.progress, check=_refuse_nonsense(job, judge, folder))


def _refuse_nonsense(job: Job, judge: Judge, folder: Path) -> Check:
    """Stop as soon as the unreadable answers are too many, whatever the rest will be."""
    share = float(job.spec.get("max_parse_errors", MAX_PARSE_ERRORS))

    def check(labels: Sequence[Label], total: int) -> None:
        errors = sum(label.parse_error for label in labels)
        if total >= FEWEST and errors > share * total:
            raise MergebenchError(
                f"the judge {judge.name} answered {errors} of {len(labels)} requests in a form that cannot be read, and at most "
                f"{share:.0%} of {total} may be. Check that the weights are those of {judge.name}, choose another judge, or raise "
                f"evaluation.judge_parse_errors; the labels made so far are kept in {folder}."
            )

    return check


def _requests(answers: responses.Answers, record: Path, rows: Mapping[str, Path]) -> Iterator[tuple[Key, Request]]:
    """What the judge sees of each answer, by item and sample."""
    benchmark = str(answers.record["benchmark"])
    if benchmark not in rows:
        raise MergebenchError(f"{record}: {benchmark} has no rows among the inputs; add its manifest.json to `data`.")
    wanted = answers.record.get("data", {}).get("rows_sha256")
    if wanted is not None and wanted != sha256_file(rows[benchmark]):
        raise MergebenchError(
            f"{record} answers other rows than those in {rows[benchmark]}, which have changed since; evaluate the model again, "
            "or restore the data it was asked with."
        )
    docs = {str(doc["id"]): doc for doc in _rows(rows[benchmark])}
    protocol = str(answers.record.get("settings", {}).get("protocol", "corrected"))
    for response in answers.responses:
        if response.item not in docs:
            raise MergebenchError(
                f"{record} answers item {response.item!r}, which {rows[benchmark]} does not have; evaluate the model again."
            )
        yield response.key, request_of(docs[response.item], response.text, protocol)


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise MergebenchError(f"{path} cannot be read as rows ({error}); make the data set again.") from None
