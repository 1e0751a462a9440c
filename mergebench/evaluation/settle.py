"""The settle stage: score answers that were kept for a judge or for the sandbox. No model runs here, and no GPU is needed.

Specification: ``kind`` (``code`` or ``safety``), ``base`` and ``benchmarks`` (name to the fields of `BenchmarkSetting`). Inputs:
``answers`` (records below ``<model>/``, each with its table beside it), ``data`` (manifests, with ``rows.jsonl`` beside each) and, for
safety, ``labels`` (tables of the judge, one per record, below ``<model>/`` too). Outputs: ``scores/<base>/<model>/<benchmark>`` (the
score record) and the same with ``.items`` (Parquet).

A score that is finished is kept under a key of everything that decides it. What is settled here never leads to a model being
asked again.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mergebench.artifacts import Job, read_json, sha256_file, sha256_json, write_json
from mergebench.errors import MergebenchError
from mergebench.evaluation import responses, safety, settling
from mergebench.evaluation.kept import RECORD, Kept
from mergebench.evaluation.local_tasks import load_task
from mergebench.evaluation.questions import Questions
from mergebench.evaluation.scoring import Record
from mergebench.evaluation.settings import TASKS, BenchmarkSetting
from mergebench.fingerprint import fingerprint

# Fields of the answers' record that describe the asking, and neither what was answered nor by whom.
VOLATILE = ("seconds",)


def run(job: Job) -> dict[str, Any]:
    """Score the answers that are not scored yet; returns values for the manifest."""
    kind = job.spec["kind"]
    if kind not in ("code", "safety"):
        raise MergebenchError(f"stage settle: kind is {kind!r}; allowed: code, safety.")
    rows = {manifest.parent.name: manifest.with_name("rows.jsonl") for manifest in job.paths("data")}
    labels = {(path.parent.name, path.stem): path for path in job.paths("labels")}
    questions: dict[str, Questions] = {}
    paths = job.paths("answers")
    scores = {}
    for done, path in enumerate(paths):
        model, benchmark = path.parent.name, path.stem
        job.progress(done, len(paths), "benchmarks settled")
        answers = _answers(path, job.spec["base"], model, rows.get(benchmark))
        labelled = _labels_of(labels, model, benchmark) if kind == "safety" else None
        setting = BenchmarkSetting.parse(benchmark, job.spec["benchmarks"][benchmark])
        kept = Kept(job.state.parent / "settled" / job.spec["base"] / model)
        place = kept.place(benchmark, _decisive(setting, answers, labelled))
        if not kept.has(place):
            if benchmark not in questions:
                questions[benchmark] = _questions(setting, rows[benchmark])
            record = _settled(job, questions[benchmark], answers, labelled)
            kept.put(place, _writer(record))
        name = f"scores/{job.spec['base']}/{model}/{benchmark}"
        write_json(job.staging(name), read_json(place / RECORD))
        job.staging(f"{name}.items").write_bytes(kept.table(place).read_bytes())
        scores[f"{model}/{benchmark}"] = read_json(place / RECORD)["value"]
    job.progress(len(paths), len(paths), "benchmarks settled")
    return {"scores": scores}


def _settled(job: Job, questions: Questions, answers: responses.Answers, labelled: Path | None) -> Record:
    if labelled is None:
        store = job.state.parent / "verdicts" / job.spec["base"] / f"{answers.record['model']}.jsonl"
        store.parent.mkdir(parents=True, exist_ok=True)
        return settling.programs_run(questions, answers, workers=max(1, job.threads), store=store, progress=job.progress)
    labels, facts = safety.read_labels(labelled)
    return settling.labelled(questions, answers, labels, facts)


def _questions(setting: BenchmarkSetting, rows: Path) -> Questions:
    task = load_task(setting, rows)
    return Questions(setting, list(task.eval_docs), task.config.metadata)


def _answers(path: Path, base: str, model: str, rows: Path | None) -> responses.Answers:
    """The answers of a record that belongs where it lies and to the rows that are there."""
    found = responses.read(path)
    record = found.record
    if (record.get("base"), record.get("model"), record.get("benchmark")) != (base, model, path.stem):
        raise MergebenchError(
            f"{path} holds the answers of {record.get('base')}/{record.get('model')} to {record.get('benchmark')}; delete it, and the "
            "model is asked again."
        )
    if rows is None:
        raise MergebenchError(f"benchmark {path.stem} has no data among the inputs; add its manifest.json to `data`.")
    if record["data"]["rows_sha256"] != sha256_file(rows):
        raise MergebenchError(f"{path} answers other rows than those of {rows}; delete it, and the model is asked again.")
    return found


def _labels_of(labels: Mapping[tuple[str, str], Path], model: str, benchmark: str) -> Path:
    if (model, benchmark) not in labels:
        raise MergebenchError(f"{model} has no labels for {benchmark} among the inputs; the judge's job makes them.")
    return labels[model, benchmark]


def _decisive(setting: BenchmarkSetting, answers: responses.Answers, labelled: Path | None) -> dict[str, Any]:
    """Everything that decides a score, and all of the answers' record that the score repeats."""
    files = [setting.task_file, *sorted(TASKS.glob("_*.yaml"))]
    return {
        "answers": answers.digest,
        "record": sha256_json({name: value for name, value in answers.record.items() if name not in (*VOLATILE, "answers")}),
        "setting": setting.as_dict(),
        "labels": labelled and sha256_file(labelled),
        "code": fingerprint(__name__),
        "files": [sha256_file(path) for path in files],
    }


def _writer(record: Record) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        record.items.to_parquet(folder / "items.parquet", index=False, compression="zstd")
        write_json(folder / RECORD, {name: value for name, value in record.summary.items() if name != "answers"})

    return write
