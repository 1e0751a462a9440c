"""The lock of hub revisions: atomic, safe under concurrency, strict about its content; and what it makes stale."""

import json
import multiprocessing
from pathlib import Path

import pytest

from mergebench.errors import MergebenchError
from mergebench.hub import lock
from mergebench.hub.commands import main
from mergebench.hub.outdated import set_outdated_aside

A, B = "a" * 40, "b" * 40


def record(folder: str, number: int) -> None:
    path = Path(folder) / "hub.lock.json"
    # Everybody wants the same repository, of which each has another opinion, and one of their own.
    lock.commit(path, "model", "shared/model", None, lambda *_: f"{number:040x}")
    lock.commit(path, "dataset", f"own/data-{number}", None, lambda *_: f"{number:040x}")


def test_many_processes_at_once_lose_no_entry_and_agree(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        pool.starmap(record, [(str(tmp_path), number) for number in range(24)])
    records = lock.read(tmp_path / "hub.lock.json")
    assert records["dataset"] == {f"own/data-{n}": f"{n:040x}" for n in range(24)}
    shared = records["model"]["shared/model"]
    assert lock.commit(tmp_path / "hub.lock.json", "model", "shared/model", None, lambda *_: B) == shared


def test_what_the_hub_could_not_say_is_not_recorded(tmp_path: Path) -> None:
    def fail(*_: object) -> str:
        raise MergebenchError("no network")

    with pytest.raises(MergebenchError):
        lock.commit(tmp_path / "hub.lock.json", "model", "a/b", None, fail)
    assert lock.read(tmp_path / "hub.lock.json") == {"dataset": {}, "model": {}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is no lock of hub revisions"),
        ('{"models": {}}', "is no lock of hub revisions"),
        ('{"model": {"a/b": "main"}}', "model a/b is locked at 'main'; expected a commit"),
        ('{"model": {"a/b": null}}', "model a/b is locked at None"),
    ],
)
def test_a_broken_lock_is_an_error_and_is_not_overwritten(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "hub.lock.json"
    path.write_text(text)
    with pytest.raises(MergebenchError, match=message):
        lock.commit(path, "model", "a/b", None, lambda *_: A)
    assert path.read_text() == text


def manifest(folder: Path, content: dict) -> Path:
    folder.mkdir(parents=True)
    path = folder / "manifest.json"
    path.write_text(json.dumps(content))
    return path


def test_what_was_fetched_at_another_commit_is_set_aside(tmp_path: Path) -> None:
    part = {"id": "own/data", "split": "test", "revision": "v1"}
    base = manifest(tmp_path / "models/b/base", {"stage": "fetch_base", "spec": {"hub": "a/b"}, "revision": A})
    local = manifest(tmp_path / "models/c/base", {"stage": "fetch_base", "spec": {"path": "/c"}, "revision": None})
    rows = manifest(
        tmp_path / "data/d", {"stage": "prepare", "spec": {"entry": {"hub": {"parts": {"rows": part}}}}, "revisions": {"own/data": A}}
    )
    path = tmp_path / "hub.lock.json"
    path.write_text(json.dumps({"model": {"a/b": A}, "dataset": {"own/data@v1": A, "own/data": B}}))
    assert set_outdated_aside(tmp_path, path) == []
    path.write_text(json.dumps({"model": {"a/b": B}, "dataset": {"own/data@v1": B}}))
    assert len(set_outdated_aside(tmp_path, path, dry_run=True)) == 2
    assert base.is_file()
    sentences = set_outdated_aside(tmp_path, path)
    assert sentences[1].endswith(f"is a/b at {A[:12]}, and {path} names {B[:12]}. This run fetches it again.")
    assert [base.is_file(), rows.is_file(), local.is_file()] == [False, False, True]


def test_the_commands_print_the_lock_and_refuse_unknown_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "hub.lock.json"
    main(["--file", str(path), "lock"])
    assert "no repository has been fetched yet" in capsys.readouterr().out
    path.write_text(json.dumps({"model": {"maker/model": A}}))
    main(["--file", str(path), "lock"])
    assert f"maker/model{' ' * 50}{A}" in capsys.readouterr().out
    with pytest.raises(MergebenchError, match="has no 'maker/modle'; did you mean 'maker/model'"):
        main(["--file", str(path), "update", "maker/modle"])
    with pytest.raises(MergebenchError, match="name repositories, or give --all"):
        main(["--file", str(path), "update"])
