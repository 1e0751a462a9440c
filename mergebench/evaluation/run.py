"""The evaluation stage: score one model on some benchmarks, one record and one table of items for each.

Specification: ``base``, ``model``, ``benchmarks`` (name to the fields of `BenchmarkSetting`), and optionally ``backend``,
``dtype``, ``batch_tokens`` and ``seed``. Inputs: ``weights`` (a Hugging Face folder) and ``data`` (manifests, with
``rows.jsonl`` beside each). Outputs: ``<benchmark>`` (JSON) and ``<benchmark>.items`` (Parquet).

A benchmark that is finished is kept in the job's state under a key of everything that decides it, so that a job that was
killed goes on where it stopped.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergebench.artifacts import Job, read_json, remove, sha256_file, sha256_json, write_json
from mergebench.checkpoints.digest import recorded_weights_digest
from mergebench.errors import MergebenchError
from mergebench.evaluation.settings import TASKS, BenchmarkSetting
from mergebench.fingerprint import fingerprint

if TYPE_CHECKING:
    from mergebench.evaluation.harness import Record

# A score that was deleted is then restored from the state, and its siblings are not scored again.
KEEP_STATE = True
ROWS_PER_CALL = 2000


def run(job: Job) -> dict[str, Any]:
    """Score the benchmarks that are not yet scored; returns values and digests for the manifest."""
    weights = job.path("weights")
    if not any(weights.glob("*.safetensors")):
        raise MergebenchError(f"{weights} has no *.safetensors file; a Hugging Face folder with safetensors weights is expected.")
    digest = recorded_weights_digest(weights)
    rows = {manifest.parent.name: manifest.with_name("rows.jsonl") for manifest in job.paths("data")}
    settings = [BenchmarkSetting.parse(name, values) for name, values in job.spec["benchmarks"].items()]
    for setting in settings:
        if setting.benchmark not in rows:
            raise MergebenchError(f"benchmark {setting.benchmark} has no data among the inputs; add its manifest.json to `data`.")
    engine: dict[str, Any] = {key: job.spec[key] for key in ("dtype", "batch_tokens", "seed") if key in job.spec}
    backend = job.spec.get("backend", "transformers")
    kept = {s.benchmark: job.state / _key(s, digest, rows[s.benchmark], backend, engine) for s in settings}
    pending = [setting for setting in settings if not _complete(kept[setting.benchmark])]
    job.progress(len(settings) - len(pending), len(settings), "benchmarks already scored")
    if pending:
        _score(job, pending, rows, kept, weights, backend, engine)
    for stale in job.state.glob("*-*"):
        if stale.is_dir() and stale not in kept.values():
            remove(stale)
    values = {}
    for setting in settings:
        folder = kept[setting.benchmark]
        summary = {**read_json(folder / "score.json"), "base": job.spec["base"], "model": job.spec["model"]}
        write_json(job.staging(setting.benchmark), {**summary, "weights_digest": digest})
        job.staging(f"{setting.benchmark}.items").write_bytes((folder / "items.parquet").read_bytes())
        values[setting.benchmark] = {"value": summary["value"], "n": summary["n"]}
    return {"weights_digest": digest, "scores": values}


def _score(
    job: Job,
    pending: list[BenchmarkSetting],
    rows: dict[str, Path],
    kept: dict[str, Path],
    weights: Path,
    backend: str,
    engine: dict[str, Any],
) -> None:
    with job.timing("load"):
        import torch

        from mergebench.evaluation import language_models
        from mergebench.evaluation.harness import Suite

        torch.set_num_threads(job.threads)
        suites = [Suite(group, rows, workers=max(1, job.threads)) for group in _groups(pending, rows)]
        lm = language_models.load(backend, weights, **engine)

    def keep(name: str, record: "Record") -> None:
        folder = kept[name]
        folder.mkdir(parents=True, exist_ok=True)
        record.items.to_parquet(folder / "items.parquet", index=False)
        write_json(folder / "score.json", record.summary)

    done = 0
    for suite in suites:
        with job.timing("evaluation"):
            suite.evaluate(lm, job.progress, keep)
        done += len(suite.settings)
        job.progress(done, len(pending), "benchmarks scored")


def _groups(settings: list[BenchmarkSetting], rows: dict[str, Path]) -> Iterator[list[BenchmarkSetting]]:
    """Benchmarks that share one call: enough rows to fill batches, few enough that a kill loses little."""
    group: list[BenchmarkSetting] = []
    size = 0
    for setting in settings:
        with rows[setting.benchmark].open("rb") as stream:
            size += min(sum(1 for _ in stream), setting.limit or sys.maxsize)
        group.append(setting)
        if size >= ROWS_PER_CALL:
            yield group
            group, size = [], 0
    if group:
        yield group


def _complete(folder: Path) -> bool:
    return (folder / "score.json").is_file() and (folder / "items.parquet").is_file()


def _key(setting: BenchmarkSetting, digest: str, rows: Path, backend: str, engine: dict[str, Any]) -> str:
    """A folder name from everything that decides a score: weights, settings, rows, backend and code."""
    shared = [TASKS / name for name in ("_rows.yaml", "_generate.yaml", "_choose.yaml")]
    decisive = {
        "weights": digest,
        "setting": setting.as_dict(),
        "rows": sha256_file(rows),
        "backend": backend,
        "engine": engine,
        "code": fingerprint(__name__),
        "task": [sha256_file(path) for path in [setting.task_file, *shared]],
    }
    return f"{setting.benchmark}-{sha256_json(decisive)[:24]}"
