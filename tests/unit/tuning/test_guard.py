"""Tuning cannot read what methods are measured with, however it tries; and it reads everything that it needs."""

import json
import os
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mergebench import catalogue
from mergebench.artifacts import Job, execute
from mergebench.errors import MergebenchError
from mergebench.evaluation.local_tasks import read_rows
from mergebench.tuning import run as tuning
from mergebench.tuning.guard import surrogates_only
from mergebench.tuning.scorer import Scorer
from tests.unit.tuning.twins import tune_job, write_rows

SURROGATE = {"mmlu_stem": {"protocol": "corrected"}, "ifeval_like": {"protocol": "corrected"}}


def campaign(folder) -> Job:
    """A job of a campaign whose results hold benchmarks, scores and answers as well."""
    results = folder / "results"
    for name in ("mmlu_stem", "gsm8k", "ifeval", "train_math"):
        write_rows(results / "data", name, [{"question": "secret"}])
    for name in (
        "scores/b/merged_ties/gsm8k.json",
        "scores/b/specialist_math/mmlu_stem.json",
        "answers/b/base/xstest.json",
        "tables/headline.csv",
    ):
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text("{}")
    return Job(
        stage="tune",
        spec={"evaluation": {"benchmarks": SURROGATE}},
        inputs={"data": [results / "data/mmlu_stem/manifest.json"], "references": [results / "scores/b/specialist_math/mmlu_stem.json"]},
        outputs={"best": results / "tuning/b/ties/best.yaml"},
        state=results / ".state/tune-1",
    )


FORBIDDEN = (
    "data/gsm8k/rows.jsonl",
    "data/ifeval/manifest.json",
    "data/train_math/rows.jsonl",
    "scores/b/merged_ties/gsm8k.json",
    "answers/b/base/xstest.json",
    "tables/headline.csv",
)
READERS = {
    "open": open,
    "pathlib": lambda path: path.read_text(),
    "descriptor": lambda path: os.open(path, os.O_RDONLY),
    "rows": read_rows,
    "pandas": pd.read_csv,
    "numpy": np.fromfile,
    "sqlite": lambda path: sqlite3.connect(path).execute("select 1"),
    "relative": lambda path: Path(os.path.relpath(path)).read_text(),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_methods_are_measured_with_cannot_be_opened(tmp_path, name):
    job = campaign(tmp_path)
    path = tmp_path / "results" / name
    with surrogates_only(job), pytest.raises(MergebenchError, match="must not see"):
        path.read_bytes()
    assert path.read_bytes(), "after the search it can"


@pytest.mark.parametrize("reader", READERS)
def test_no_way_of_opening_helps(tmp_path, monkeypatch, reader):
    monkeypatch.chdir(tmp_path)
    with surrogates_only(campaign(tmp_path)), pytest.raises(MergebenchError, match="gsm8k"):
        READERS[reader](tmp_path / "results/data/gsm8k/rows.jsonl")


def test_neither_links_nor_detours_help(tmp_path):
    job = campaign(tmp_path)
    secret = tmp_path / "results/data/gsm8k/rows.jsonl"
    (tmp_path / "link").symlink_to(secret)
    (tmp_path / "folder").symlink_to(secret.parent)
    detour = tmp_path / "results/data/mmlu_stem/../gsm8k/rows.jsonl"
    with surrogates_only(job):
        for path in (tmp_path / "link", tmp_path / "folder/rows.jsonl", detour):
            with pytest.raises(MergebenchError, match="must not see"):
                path.read_text()


def test_the_surrogates_the_references_and_the_state_can_be_opened(tmp_path):
    job = campaign(tmp_path)
    with surrogates_only(job):
        assert read_rows(tmp_path / "results/data/mmlu_stem/rows.jsonl")
        for path in (*job.paths("data"), *job.paths("references")):
            path.read_text()
        for path in (job.state / "search.jsonl", job.outputs["best"]):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
            path.read_text()


def test_source_files_and_the_hubs_cache_are_shut_too(tmp_path, monkeypatch):
    raw, cached = tmp_path / "raw/gsm8k/test.jsonl", tmp_path / "hub/datasets--openai--gsm8k/blobs/1"
    for path in (raw, cached):
        path.parent.mkdir(parents=True)
        path.write_text("secret")
    monkeypatch.setenv("MERGEBENCH_REAL_DATA", str(tmp_path / "raw"))
    with surrogates_only(campaign(tmp_path)):
        for path in (raw, cached):
            with pytest.raises(MergebenchError, match="must not see"):
                path.read_text()


def test_a_search_that_reads_a_benchmark_ends(tmp_path, monkeypatch):
    """The whole stage, with a scorer that cheats."""
    job = tune_job(tmp_path, "task_arithmetic", {"scale": [0.5]})
    secret = write_rows(tmp_path / "data", "gsm8k", [{"question": "1 + 1", "answer": "2"}]).with_name("rows.jsonl")
    score = Scorer.score

    def cheat(self, *arguments):
        read_rows(secret)
        return score(self, *arguments)

    monkeypatch.setattr(Scorer, "score", cheat)
    with pytest.raises(MergebenchError, match="gsm8k"):
        execute(tuning, job)
    assert not job.outputs["best"].exists()


def with_manifest(job: Job, name: str, spec: dict) -> Job:
    path = job.state.parents[1] / "data" / name / "manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"files": {}, "spec": spec}))
    job.inputs["data"] = [path]
    return job


def test_a_benchmark_among_the_data_is_refused_by_name_and_by_manifest(tmp_path):
    entries = catalogue.datasets()
    for name, spec in (
        ("gsm8k", {"dataset": "gsm8k", "entry": entries["gsm8k"]}),
        ("mmlu_stem", {"dataset": "gsm8k", "entry": entries["gsm8k"]}),
        ("mmlu_stem", {"dataset": "mmlu_stem", "entry": entries["gsm8k"]}),
    ):
        job = with_manifest(campaign(tmp_path / spec["dataset"] / name), name, spec)
        with pytest.raises(MergebenchError, match="reads surrogates only"), surrogates_only(job):
            pass


def test_a_test_set_as_surrogate_must_be_asked_for_by_name(tmp_path):
    """Under the released protocol IFEval's own prompts stand for IFEval-like."""
    entry = {**catalogue.datasets()["ifeval"], "use": "surrogate"}
    job = with_manifest(campaign(tmp_path), "ifeval_like", {"dataset": "ifeval_like", "entry": entry})
    with pytest.raises(MergebenchError, match=r"evaluation\.protocol: released"), surrogates_only(job):
        pass
    job.spec["evaluation"]["benchmarks"] = {"ifeval_like": {"protocol": "released"}}
    with surrogates_only(job):
        pass
