"""The main process locks configuration and folder; commands that only ask change nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mergebench.workflow import lock

ROOT = Path(__file__).parents[3]
RAW = yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.mark.parametrize("words", [["-n"], ["--dry-run"], ["-np"], ["--lint"], ["--report", "r.html"], ["--unlock"], ["--touch"]])
def test_these_only_ask(words):
    assert lock.only_asks(["--cores", "2", *words])


@pytest.mark.parametrize("words", [[], ["--cores", "2"], ["-p"], ["--profile", "profiles/tiny"], ["--", "results/n.json"]])
def test_these_run(words):
    assert not lock.only_asks(words)


def test_a_job_uses_what_was_locked_and_not_what_the_file_says_now(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    locked = lock.resolve({**RAW, "preset": "micro"}, main=True)
    later = lock.resolve({**RAW, "preset": "tiny"}, main=False)
    assert later == locked
    assert later.preset == "micro"


def test_an_invalid_configuration_ends_the_run_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        lock.resolve({**RAW, "preset": "tini"}, main=True)
    assert "did you mean 'tiny'" in str(end.value)
    assert "\n" not in str(end.value)


def test_a_job_without_a_lock_says_so(monkeypatch):
    monkeypatch.delenv(lock.VARIABLE, raising=False)
    with pytest.raises(SystemExit, match=lock.VARIABLE):
        lock.resolve(RAW, main=False)


def hold(folder: Path, preset: str) -> subprocess.Popen:
    code = f"import time; from mergebench.workflow import lock; lock.take_folder({preset!r}, []); print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "held"
    return process


def test_the_same_preset_twice_is_refused_and_another_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lock, "_HELD", [])
    process = hold(tmp_path, "tiny")
    try:
        with pytest.raises(SystemExit, match=f"process {process.pid} on .* is running preset tiny"):
            lock.take_folder("tiny", [])
        lock.take_folder("tiny", ["--dry-run"])
        lock.take_folder("micro", [])
    finally:
        process.kill()
        process.wait()


def test_snakemakes_locks_of_a_killed_run_are_removed_but_not_those_of_a_living_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lock, "_HELD", [])
    stale = tmp_path / ".snakemake/locks/0.input.lock"
    stale.parent.mkdir(parents=True)
    stale.write_text(json.dumps("x"))
    process = hold(tmp_path, "tiny")
    assert not stale.exists(), "nothing else was alive"
    stale.write_text("of the living run")
    lock.take_folder("micro", [])
    assert stale.exists()
    process.kill()
    process.wait()
    lock._HELD.pop().close()
    lock.take_folder("micro", [])
    assert not stale.exists()
