"""The evaluation stage: ask one model some benchmarks.

Specification: ``base``, ``model``, ``benchmarks`` (name to the fields of `BenchmarkSetting`), and optionally ``backend``,
``dtype``, ``batch_tokens``, ``max_length``, ``seed`` and ``most_cut``. Inputs: ``weights`` (a Hugging Face folder) and ``data``
(manifests, with ``rows.jsonl`` beside each). Outputs of a benchmark that is scored here: ``<benchmark>`` (the score record) and
``<benchmark>.items`` (Parquet); of one that a judge or the sandbox decides about: ``<benchmark>`` (the record of the answers) and
``<benchmark>.responses`` (Parquet), see `responses`.

A benchmark that is finished is kept under a key of everything that decides it, so that a job that was killed goes on where it
stopped, and so that the same benchmarks in other jobs are not asked again.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mergebench import catalogue
from mergebench.artifacts import Job, read_json, sha256_file, write_json
from mergebench.checkpoints.digest import recorded_weights_digest
from mergebench.errors import MergebenchError
from mergebench.evaluation import responses
from mergebench.evaluation.instruction_following import sentence_models
from mergebench.evaluation.kept import RECORD, Kept
from mergebench.evaluation.settings import TASKS, BenchmarkSetting
from mergebench.fingerprint import fingerprint

# Rows that share one call of the backend: enough to fill its batches, few enough that a kill loses little.
ROWS_PER_CALL = {"transformers": 2_000, "vllm": 10_000}
SETTLED = ("judge", "allow_weak_sandbox", "timeout_seconds")  # settings that decide a score, but no answer
ENGINE = ("dtype", "batch_tokens", "seed", "max_length")


def run(job: Job) -> dict[str, Any]:
    """Ask the benchmarks that have not been asked yet; returns values and digests for the manifest."""
    work = _Work(job)
    job.progress(len(work.settings) - len(work.pending), len(work.settings), "benchmarks asked already")
    if work.pending:
        work.ask()
    return {"weights_digest": work.digest, "scores": {setting.benchmark: work.publish(setting) for setting in work.settings}}


def reads_weights(job: Job) -> bool:
    """Whether the model is needed, or everything that the job makes is kept already."""
    try:
        return bool(_Work(job).pending)
    except (MergebenchError, OSError):  # the job itself says what is wrong
        return True


class _Work:
    """What a job is asked to make, and where its finished benchmarks are kept."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.weights = job.path("weights")
        self.digest = recorded_weights_digest(self.weights)
        self.rows = {manifest.parent.name: manifest.with_name("rows.jsonl") for manifest in job.paths("data")}
        self.settings = [BenchmarkSetting.parse(name, values) for name, values in job.spec["benchmarks"].items()]
        for setting in self.settings:
            if setting.benchmark not in self.rows:
                raise MergebenchError(f"benchmark {setting.benchmark} has no data among the inputs; add its manifest.json to `data`.")
            _check_count(setting.benchmark, self.rows[setting.benchmark])
        self.backend = str(job.spec.get("backend", "transformers"))
        self.engine = {key: job.spec[key] for key in ENGINE if key in job.spec}
        # Beside the states of the jobs: however benchmarks are grouped into jobs, a model has one place.
        self.kept = Kept(job.state.parent / "asked" / job.spec["base"] / job.spec["model"])
        self.places = {s.benchmark: self.kept.place(s.benchmark, self._decisive(s)) for s in self.settings}

    @property
    def pending(self) -> list[BenchmarkSetting]:
        """Benchmarks that are not kept."""
        return [setting for setting in self.settings if not self.kept.has(self.places[setting.benchmark])]

    def _decisive(self, setting: BenchmarkSetting) -> dict[str, Any]:
        """Everything that decides what a model answers: weights, settings, rows, backend and code."""
        rows = self.rows[setting.benchmark]
        files = [setting.task_file, *sorted(TASKS.glob("_*.yaml")), *sorted(rows.parent.glob("examples.jsonl")), *sentence_models(rows)]
        return {
            "weights": self.digest,
            "setting": {name: value for name, value in setting.as_dict().items() if name not in SETTLED},
            "rows": sha256_file(rows),
            "backend": self.backend,
            "engine": self.engine,
            "code": fingerprint(__name__),
            "files": [sha256_file(path) for path in files],
        }

    def ask(self) -> None:
        """Ask what is pending; each benchmark is kept as soon as it is finished."""
        job, pending = self.job, self.pending
        if not any(self.weights.glob("*.safetensors")):
            raise MergebenchError(f"{self.weights} has no *.safetensors file; a Hugging Face folder with safetensors weights is expected.")
        with job.timing("load"):
            import torch

            from mergebench.evaluation import backends
            from mergebench.evaluation.asking import Asking, Result

            torch.set_num_threads(job.threads)
            most_cut = float(job.spec.get("most_cut", 1.0))
            calls = [Asking(group, self.rows, most_cut=most_cut) for group in self._calls(pending)]
            lm = backends.load(self.backend, self.weights, **self.engine)

        def keep(name: str, result: "Result") -> None:
            self.kept.put(self.places[name], lambda folder: _write(folder, result))

        refused: list[MergebenchError] = []
        try:
            for call in calls:
                with job.timing("evaluation"):
                    try:
                        call.ask(lm, job.progress, keep)
                    except MergebenchError as error:  # of one benchmark: the others shall not be lost by it
                        refused.append(error)
                job.progress(len(pending) - len(self.pending), len(pending), "benchmarks asked")
        finally:
            lm.close()
        if refused:
            raise refused[0]

    def _calls(self, settings: list[BenchmarkSetting]) -> Iterator[list[BenchmarkSetting]]:
        """Benchmarks that share one call of the backend."""
        group: list[BenchmarkSetting] = []
        size = 0
        for setting in settings:
            with self.rows[setting.benchmark].open("rb") as stream:
                size += min(sum(1 for _ in stream), setting.limit or sys.maxsize)
            group.append(setting)
            if size >= ROWS_PER_CALL[self.backend]:
                yield group
                group, size = [], 0
        if group:
            yield group

    def publish(self, setting: BenchmarkSetting) -> dict[str, Any]:
        """Stage the outputs of a finished benchmark; returns what the manifest says of it."""
        job, name = self.job, setting.benchmark
        place = self.places[name]
        record = read_json(place / RECORD) | {"base": job.spec["base"], "model": job.spec["model"], "weights_digest": self.digest}
        write_json(job.staging(name), record)
        table = self.kept.table(place)
        job.staging(f"{name}.{table.stem}").write_bytes(table.read_bytes())
        if "value" in record:
            return {"value": record["value"], "n": record["n"]}
        return {"answers": record["answers"]["sha256"]}


def _write(folder: Path, result: Any) -> None:
    """A score as ``record.json`` and ``items.parquet``, answers as ``record.json`` and ``responses.parquet``."""
    if isinstance(result, responses.Answers):
        responses.write(folder / RECORD, folder / "responses.parquet", result)
    else:
        result.items.to_parquet(folder / "items.parquet", index=False, compression="zstd")
        write_json(folder / RECORD, result.summary)


def _check_count(benchmark: str, rows: Path) -> None:
    """Refuse a data set that is neither cut by a limit nor as large as the catalogue says; generated data has any size."""
    manifest = rows.with_name("manifest.json")
    known = read_json(manifest) if manifest.is_file() else {}
    expected, found = catalogue.datasets().get(benchmark, {}).get("rows"), known.get("source_rows")
    if known.get("source") == "tiny" or None in (expected, found) or known.get("spec", {}).get("limit") is not None:
        return
    if found != expected:
        raise MergebenchError(
            f"{manifest} counts {found} rows, but {benchmark} has {expected}: its score would not be comparable. Complete the source's "
            f"files, or say how many rows shall be scored in data.limits.{benchmark}."
        )
