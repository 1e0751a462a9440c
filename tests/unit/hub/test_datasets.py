"""Datasets from the hub through its own client: locked commits, single files and whole splits, every file verified."""

from pathlib import Path
from typing import Any

import pytest

from mergebench import catalogue
from mergebench.artifacts import read_json
from mergebench.data.sources import hub as source
from mergebench.errors import MergebenchError
from tests.hub_server import Hub
from tests.unit.data import published

ROWS = [{"question": f"What is {n} + 1? " + "x" * 40, "answer": f"#### {n + 1}"} for n in range(40)]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    published.jsonl(tmp_path / "rows.jsonl", ROWS)
    readme = "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: test\n    path: main/test.jsonl\n---\n"
    return {"README.md": readme.encode(), "main/test.jsonl": (tmp_path / "rows.jsonl").read_bytes()}


def load(tmp_path: Path, **part: Any) -> source.Loaded:
    entry = {**catalogue.datasets()["gsm8k"], "hub": {"parts": {"rows": {"id": "openai/gsm8k", **part}}}}
    return source.load("gsm8k", entry, 0, tmp_path / "hub.lock.json")


def test_a_file_is_read_at_the_locked_commit(hub: Hub, tmp_path: Path, files: dict[str, bytes]) -> None:
    first = hub.add("openai/gsm8k", files, kind="dataset")
    loaded = load(tmp_path, file="main/*.jsonl")
    assert [row["question"] for row in loaded.rows] == [row["question"] for row in ROWS]
    assert loaded.revisions == {"openai/gsm8k": first}
    hub.add("openai/gsm8k", {"README.md": b""}, kind="dataset")
    assert load(tmp_path, file="main/*.jsonl").revisions == {"openai/gsm8k": first}
    assert read_json(tmp_path / "hub.lock.json") == {"dataset": {"openai/gsm8k": first}, "model": {}}


def test_a_split_is_read_by_the_datasets_library(
    hub: Hub, tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.address)
    monkeypatch.setattr(datasets.config, "HUB_DATASETS_URL", hub.address + "/datasets/{repo_id}/resolve/{revision}/{path}")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    commit = hub.add("openai/gsm8k", files, kind="dataset")
    loaded = load(tmp_path, config="main", split="test")
    assert len(loaded.rows) == len(ROWS)
    assert loaded.revisions == {"openai/gsm8k": commit}


def test_a_file_that_differs_from_the_hubs_hash_is_refused_and_fetched_anew(hub: Hub, tmp_path: Path, files: dict[str, bytes]) -> None:
    hub.add("openai/gsm8k", files, kind="dataset")
    hub.altered = 1
    with pytest.raises(MergebenchError, match=r"main/test\.jsonl of openai/gsm8k differs from the hash that the hub names; it is deleted"):
        load(tmp_path, file="main/*.jsonl")
    assert len(load(tmp_path, file="main/*.jsonl").rows) == len(ROWS)


def test_a_dataset_that_does_not_exist(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(MergebenchError, match="The hub has no dataset openai/gsm8k that you may read"):
        load(tmp_path, file="main/*.jsonl")
