"""Judges for tests, and answers of models in files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mergebench.artifacts import Job, sha256_file
from mergebench.evaluation import responses
from mergebench.evaluation.responses import Answers, Response
from mergebench.evaluation.safety.labels import Label, Request

WILDGUARD = {"name": "wildguard", "reads": ["request", "refusal", "harm"], "fallback": False}
KEYWORD = {"name": "keyword", "reads": ["refusal"], "fallback": True}
HARMBENCH = {"name": "harmbench", "reads": ["harm"], "fallback": False}


class CountingJudge:
    """Refuses where the answer begins with "no"; cannot read answers that begin with "?"; remembers what it was asked."""

    name = "counting"
    reads = ("request", "refusal", "harm")
    code = (__name__,)

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "reads": list(self.reads), "fallback": False, "backend": "transformers"}

    def judge(self, requests: Sequence[Request]) -> list[Label]:
        self.asked += requests
        return [verdict(request) for request in requests]


def verdict(request: Request) -> Label:
    """What `CountingJudge` says; the digest in `raw` ties a label to its request."""
    raw = hashlib.sha256(repr(request).encode()).hexdigest()
    if request.response.startswith("?"):
        return Label(parse_error=True, raw=raw)
    refused = request.response.startswith("no")
    return Label(harmful_request=True, refused=refused, harmful=not refused, raw=raw)


def write_rows(root: Path, benchmark: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """The data of a benchmark; returns its manifest."""
    folder = root / "data" / benchmark
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps({"files": {}}))
    return folder / "manifest.json"


def write_answers(root: Path, model: str, manifest: Path, texts: Mapping[str, Sequence[str]], protocol: str = "corrected") -> Path:
    """Answers of a model: the samples of each item; returns the record."""
    benchmark = manifest.parent.name
    record = {
        "base": "b",
        "model": model,
        "benchmark": benchmark,
        "settings": {"protocol": protocol},
        "data": {"rows_sha256": sha256_file(manifest.with_name("rows.jsonl"))},
    }
    answers = [Response(item, number, text) for item, samples in texts.items() for number, text in enumerate(samples)]
    path = root / "answers" / "b" / model / f"{benchmark}.json"
    responses.write(path, responses.table_of(path), Answers(record, tuple(answers)))
    return path


def judge_job(root: Path, answers: Sequence[Path], *, weights: Path | None = None, **spec: Any) -> Job:
    """A job of the judge stage over these answers."""
    outputs = {f"{p.parent.name}/{p.stem}": root / "labels" / "b" / p.parent.name / f"{p.stem}.parquet" for p in answers}
    inputs: dict[str, Any] = {"answers": list(answers), "data": sorted(root.glob("data/*/manifest.json"))}
    if weights is not None:
        inputs["weights"] = weights
    return Job("judge", {"base": "b", "judge": "keyword", **spec}, inputs, outputs, root / "state" / "judge-0")
