"""Datasets from the hub through its own client: locked commits, single files and whole splits, resumed, every file verified."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mergebench import catalogue
from mergebench.artifacts import Job, execute, read_json, sha256_file
from mergebench.data import prepare
from mergebench.data.schema import check_rows
from mergebench.data.sources import hub as source
from mergebench.errors import MergebenchError
from mergebench.hub import dataset_files, download
from tests.hub_server import Hub
from tests.unit.data import published

ROOT = Path(__file__).resolve().parents[3]
NAME = "openai/gsm8k"
ROWS = [{"question": f"What is {n} + 1? " + "x" * 40, "answer": f"#### {n + 1}"} for n in range(40)]
CARD = """---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train.jsonl
  - split: test
    path: main/test.jsonl
---
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    published.jsonl(tmp_path / "rows.jsonl", ROWS)
    published.jsonl(tmp_path / "train.jsonl", [{**ROWS[0], "answer": "#### 5"}] * 100)
    content = {name: (tmp_path / f"{name}.jsonl").read_bytes() for name in ("rows", "train")}
    return {"README.md": CARD.encode(), "main/test.jsonl": content["rows"], "main/train.jsonl": content["train"]}


@pytest.fixture
def library(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub as `datasets`, already imported in this process, sees it."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.address)
    monkeypatch.setattr(datasets.config, "HUB_DATASETS_URL", hub.address + "/datasets/{repo_id}/resolve/{revision}/{path}")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return hub


def entry(**part: Any) -> dict[str, Any]:
    return {**catalogue.datasets()["gsm8k"], "rows": None, "hub": {"parts": {"rows": {"id": NAME, **part}}}}


def load(tmp_path: Path, **part: Any) -> source.Loaded:
    return source.load("gsm8k", entry(**part), 0, tmp_path / "hub.lock.json")


def questions(loaded: source.Loaded) -> list[str]:
    return [row["question"] for row in loaded.rows]


def cached(commit: str) -> dict[str, bytes]:
    """What the hub's cache holds of the dataset."""
    folder = dataset_files.snapshot(NAME, commit)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def transfers(hub: Hub) -> list[str]:
    """The large files that were asked for, once per transfer."""
    return [path.rpartition("/")[2] for method, path, _ in hub.requests if method == "GET" and path.startswith("/cdn")]


def test_a_file_is_read_at_the_locked_commit(hub: Hub, tmp_path: Path, files: dict[str, bytes]) -> None:
    first = hub.add(NAME, files, kind="dataset")
    loaded = load(tmp_path, file="main/test*.jsonl")
    assert questions(loaded) == [row["question"] for row in ROWS]
    assert loaded.revisions == {NAME: first}
    assert loaded.files == {f"{NAME}/main/test.jsonl": sha256_file(tmp_path / "rows.jsonl")}
    hub.add(NAME, {"README.md": b""}, kind="dataset")
    assert load(tmp_path, file="main/test*.jsonl").revisions == {NAME: first}
    assert read_json(tmp_path / "hub.lock.json") == {"dataset": {NAME: first}, "model": {}}


def test_of_a_split_only_its_own_files_are_fetched(library: Hub, tmp_path: Path, files: dict[str, bytes]) -> None:
    commit = library.add(NAME, files, kind="dataset")
    loaded = load(tmp_path, config="main", split="test")
    assert questions(loaded) == [row["question"] for row in ROWS]
    assert loaded.revisions == {NAME: commit}
    assert loaded.files == {f"{NAME}/main/test.jsonl": sha256_file(tmp_path / "rows.jsonl")}
    assert transfers(library) == ["test.jsonl"]


def test_what_is_in_the_cache_is_not_fetched_again(library: Hub, tmp_path: Path, files: dict[str, bytes]) -> None:
    library.add(NAME, files, kind="dataset")
    first = load(tmp_path, config="main", split="test")
    assert load(tmp_path, file="main/test*.jsonl").rows == load(tmp_path, config="main", split="test").rows == first.rows
    assert transfers(library) == ["test.jsonl"]


def test_a_split_is_read_as_its_card_says(library: Hub, tmp_path: Path) -> None:
    card = (
        "---\nconfigs:\n- config_name: main\n  sep: '|'\n  data_files:\n  - split: test\n    path: '*.csv'\n"
        "dataset_info:\n- config_name: main\n  features:\n  - name: question\n    dtype: string\n  - name: answer\n    dtype: string\n---\n"
    )
    library.add(NAME, {"README.md": card.encode(), "test.csv": b"question|answer\nWhat, then?|7\n"}, kind="dataset")
    split = dataset_files.find_split(NAME, "main", "test", library.repositories["dataset", NAME].resolve("main"))
    assert (split.files, split.reader, split.options["sep"]) == (("test.csv",), "csv", "|")
    (tmp_path / "test.csv").write_text("question|answer\nWhat, then?|7\n")
    rows = list(dataset_files.read_split(split, "test", [tmp_path / "test.csv"]))
    assert rows == [{"question": "What, then?", "answer": "7"}]  # a string, though it looks like a number


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_the_rows_of_a_split_are_those_that_the_library_reads_itself(library: Hub, tmp_path: Path, kind: str) -> None:
    import datasets

    features = {"question": "string", "subject": "string", "score": "float64"}
    card = "---\ndataset_info:\n- config_name: main\n  features:\n" + "".join(
        f"  - name: {name}\n    dtype: {kind}\n" for name, kind in features.items()
    )
    card += "  - name: answers\n    sequence:\n    - name: text\n      dtype: string\n    - name: start\n      dtype: int32\n"
    card += f"configs:\n- config_name: main\n  data_files:\n  - split: test\n    path: test-*.{kind}\n---\n"
    rows = [
        {"question": f"{n}?", "subject": None if n else "x", "score": n, "answers": {"text": [str(n)] * n, "start": [n] * n}}
        for n in range(3)
    ]
    write = published.parquet if kind == "parquet" else published.jsonl
    files = {"README.md": card.encode()}
    for number, some in enumerate((rows[:2], rows[2:])):
        write(tmp_path / f"made.{kind}", some)
        files[f"test-{number}.{kind}"] = (tmp_path / f"made.{kind}").read_bytes()
    commit = library.add(NAME, files, kind="dataset")
    expected = datasets.load_dataset(NAME, "main", split="test", revision=commit)
    split = dataset_files.find_split(NAME, "main", "test", commit)
    wanted = [remote for remote in download.listing("dataset", NAME, commit) if remote.name in split.files]
    paths = dataset_files.fetch_files(NAME, commit, wanted, lambda *_: None)
    found = dataset_files.read_split(split, "test", [paths[name] for name in split.files])
    assert list(found) == list(expected)
    assert found.features == expected.features
    assert [row["answers"]["text"] for row in found] == [[], ["1"], ["2", "2"]]


def test_an_unknown_split_names_those_there_are(library: Hub, tmp_path: Path, files: dict[str, bytes]) -> None:
    library.add(NAME, files, kind="dataset")
    with pytest.raises(MergebenchError, match=r"openai/gsm8k at \w{12} has no split 'dev' in its configuration main; it has train, test\."):
        load(tmp_path, config="main", split="dev")


def test_an_unknown_configuration_is_a_sentence(library: Hub, tmp_path: Path, files: dict[str, bytes]) -> None:
    library.add(NAME, files, kind="dataset")
    with pytest.raises(MergebenchError, match=r"openai/gsm8k/other/test at \w{12} could not be read: BuilderConfig 'other' not found"):
        load(tmp_path, config="other", split="test")


@pytest.mark.parametrize(
    ("repository", "message"),
    [("other/data", "could not be read: Data files don't belong to openai/gsm8k"), (NAME, r"its split test is made of .*, which is not")],
    ids=["another dataset", "another commit"],
)
def test_a_split_of_files_that_the_commit_does_not_hold_is_refused(
    library: Hub, tmp_path: Path, files: dict[str, bytes], repository: str, message: str
) -> None:
    other = library.add(repository, files, kind="dataset")
    card = CARD.replace("main/test.jsonl", f"hf://datasets/{repository}@{other}/main/test.jsonl")
    library.add(NAME, {**files, "README.md": card.encode()}, kind="dataset")
    with pytest.raises(MergebenchError, match=message):
        load(tmp_path, config="main", split="test")


def test_a_transfer_that_breaks_off_goes_on_where_it_ended(hub: Hub, tmp_path: Path, files: dict[str, bytes]) -> None:
    published.jsonl(tmp_path / "rows.jsonl", ROWS * 5)
    hub.add(NAME, {"main/test.jsonl": (tmp_path / "rows.jsonl").read_bytes()}, kind="dataset")
    hub.cut = [8192]
    assert questions(load(tmp_path, file="main/test.jsonl")) == [row["question"] for row in ROWS] * 5
    assert [wanted for method, path, wanted in hub.requests if method == "GET" and path.startswith("/cdn")] == [None, "bytes=8192-"]


def test_a_killed_fetch_goes_on_inside_the_file(tmp_path: Path) -> None:
    hub = Hub()
    random = Random(0)
    rows = [{"question": f"What is {n}? {random.randbytes(500).hex()}", "answer": f"#### {n}"} for n in range(1000)]
    published.parquet(tmp_path / "made.parquet", rows)
    content = (tmp_path / "made.parquet").read_bytes()
    card = "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: test\n    path: main/test.parquet\n---\n"
    commit = hub.add(NAME, {"README.md": card.encode(), "main/test.parquet": content}, kind="dataset")
    hub.bytes_per_second = 400_000
    spec = json.dumps({"dataset": "gsm8k", "source": "hub", "seed": 0, "entry": entry(config="main", split="test")})
    small = "from huggingface_hub import constants; constants.DOWNLOAD_CHUNK_SIZE = 16384; from mergebench.cli import main; main()"
    words = ["run", "prepare", "--online", "--state", "state", "--spec", spec]
    command = [sys.executable, "-c", small, *words, "--output", "manifest=data/manifest.json", "rows=data/rows.jsonl"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf")}
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_CACHE"):
        environment.pop(name, None)
    folder = tmp_path / f"hf/hub/datasets--openai--gsm8k/snapshots/{commit}/main"
    part = folder / "test.parquet.part"
    process = subprocess.Popen(command, cwd=tmp_path, env=environment)
    while not (part.exists() and part.stat().st_size > 200_000):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.bytes_per_second, had = None, part.stat().st_size
    assert not (folder / "test.parquet").exists()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120)
    assert [wanted for _, path, wanted in hub.requests if path.startswith("/cdn")][-1] == f"bytes={had}-"
    assert (folder / "test.parquet").read_bytes() == content
    manifest = read_json(tmp_path / "data/manifest.json")
    assert (manifest["rows"], manifest["revisions"]) == ({"rows": 1000}, {NAME: commit})
    assert manifest["source_files"] == {f"{NAME}/main/test.parquet": sha256_file(tmp_path / "made.parquet")}
    hub.close()


def test_a_wrong_byte_is_noticed_and_the_file_fetched_again(library: Hub, tmp_path: Path, files: dict[str, bytes]) -> None:
    commit = library.add(NAME, files, kind="dataset")
    library.altered = 1
    assert questions(load(tmp_path, config="main", split="test")) == [row["question"] for row in ROWS]
    assert cached(commit)["main/test.jsonl"] == files["main/test.jsonl"]


def test_a_file_that_stays_wrong_is_refused_and_not_kept(hub: Hub, tmp_path: Path, files: dict[str, bytes]) -> None:
    commit = hub.add(NAME, files, kind="dataset")
    hub.altered = 100
    with pytest.raises(MergebenchError, match=r"main/test\.jsonl of openai/gsm8k arrived twice with content that differs from the hash"):
        load(tmp_path, file="main/test.jsonl")
    assert cached(commit) == {}


@pytest.mark.parametrize("linked", [False, True], ids=["file", "link to a blob"])
def test_a_damaged_file_of_the_cache_is_not_read(
    hub: Hub, tmp_path: Path, files: dict[str, bytes], linked: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = dataset_files.snapshot(NAME, hub.add(NAME, files, kind="dataset")) / "main/test.jsonl"
    path.parent.mkdir(parents=True)
    damaged = files["main/test.jsonl"].replace(b"#### 1", b"#### 9", 1)
    (tmp_path / "blob" if linked else path).write_bytes(damaged)
    if linked:
        path.symlink_to(tmp_path / "blob")
    assert [row["answer"] for row in load(tmp_path, file="main/test.jsonl").rows] == [row["answer"] for row in ROWS]
    assert "main/test.jsonl of openai/gsm8k" in capsys.readouterr().err
    assert not (tmp_path / "blob").exists()


def test_a_disk_that_is_too_small_is_noticed_before_the_first_byte(
    hub: Hub, tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, files, kind="dataset")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("", (), {"free": 1000})())
    with pytest.raises(MergebenchError, match=r"openai/gsm8k needs 0\.00 MB more in .*, or set HF_HUB_CACHE to a folder on a larger disk"):
        load(tmp_path, file="main/test.jsonl")
    assert transfers(hub) == []


def test_two_jobs_that_want_one_file_fetch_it_once(hub: Hub, tmp_path: Path, files: dict[str, bytes]) -> None:
    content = files["main/test.jsonl"] * 50
    commit = hub.add(NAME, {"test.jsonl": content}, kind="dataset")
    remotes = download.listing("dataset", NAME, commit)
    found: list[bytes] = []

    def job() -> None:
        found.append(dataset_files.fetch_files(NAME, commit, remotes, lambda *_: None)["test.jsonl"].read_bytes())

    jobs = [threading.Thread(target=job) for _ in range(4)]
    for thread in jobs:
        thread.start()
    for thread in jobs:
        thread.join()
    assert found == [content] * 4
    assert transfers(hub) == ["test.jsonl"]


def test_the_hubs_own_tools_find_and_delete_what_was_fetched(hub: Hub, tmp_path: Path, files: dict[str, bytes]) -> None:
    from huggingface_hub import constants, scan_cache_dir

    commit = hub.add(NAME, files, kind="dataset")
    load(tmp_path, file="main/test.jsonl")
    cache = scan_cache_dir(constants.HF_HUB_CACHE)
    assert not cache.warnings
    assert [(repo.repo_id, repo.size_on_disk) for repo in cache.repos] == [(NAME, len(files["main/test.jsonl"]))]
    cache.delete_revisions(commit).execute()
    assert cached(commit) == {}


def test_progress_is_reported(hub: Hub, tmp_path: Path, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    hub.add(NAME, files, kind="dataset")
    outputs = {"manifest": tmp_path / "out/manifest.json", "rows": tmp_path / "out/rows.jsonl"}
    spec = {"dataset": "gsm8k", "source": "hub", "seed": 0, "entry": entry(file="main/test.jsonl")}
    execute(prepare, Job("prepare", spec, {}, outputs, tmp_path / "state", hub_lock=tmp_path / "hub.lock.json"))
    assert "GB of openai/gsm8k" in capsys.readouterr().err


def test_a_dataset_that_does_not_exist(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(MergebenchError, match="The hub has no dataset openai/gsm8k that you may read"):
        load(tmp_path, file="main/*.jsonl")


def test_parts_of_one_repository_stay_in_the_order_of_the_catalogue(library: Hub, tmp_path: Path) -> None:
    options = {f"option_{c}": f"choix {c}" for c in "abc"}
    languages = ("fr", "es")
    content = {}
    for language in languages:
        published.jsonl(tmp_path / "one.jsonl", [{"id": language, "instruction": "Pourquoi ?", "answer": "B", **options}])
        content[f"data/{language}/test.jsonl"] = (tmp_path / "one.jsonl").read_bytes()
    configs = "".join(f"- config_name: {x}\n  data_files:\n  - split: test\n    path: data/{x}/test.jsonl\n" for x in languages)
    library.add("maker/m_arc", {"README.md": f"---\nconfigs:\n{configs}---\n".encode(), **content}, kind="dataset")
    parts = {language: {"id": "maker/m_arc", "config": language, "split": "test"} for language in languages}
    loaded = source.load("m_arc", {**catalogue.datasets()["m_arc"], "hub": {"parts": parts}}, 0, tmp_path / "hub.lock.json")
    check_rows("m_arc", loaded.rows)
    assert [row["language"] for row in loaded.rows] == ["fr", "es"]
    assert loaded.rows[0]["choices"] == ["choix a", "choix b", "choix c"]
