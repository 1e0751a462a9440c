"""What Slurm prints becomes records, and silence is told from an empty answer."""

import stat
from pathlib import Path

import pytest

from mergebench.workflow import squeue

ANSWER = """CLUSTER: one
101|RUNNING|1-02:03:04|2-00:00:00|n1|None
102|PENDING|0:00|UNLIMITED||Resources
103|OUT_OF_MEMORY|10:05|1:00:00|n[1-2]|OutOfMemory
"""


def install(folder: Path, name: str, script: str) -> None:
    tool = folder / name
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)


def test_an_answer_becomes_one_record_per_job():
    found = squeue.parse(ANSWER)
    assert list(found) == ["101", "102", "103"]
    assert found["101"] == squeue.Record("RUNNING", 93784.0, 172800.0, "n1", "None")
    assert found["102"].limit == float("inf")
    assert found["103"].nodes == "n[1-2]"


@pytest.mark.parametrize(
    ("text", "expected"), [("59", 59), ("1:05", 65), ("2:00:00", 7200), ("1-00:00:01", 86401), ("UNLIMITED", None), ("", None)]
)
def test_durations(text, expected):
    assert squeue.seconds(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("CANCELLED by 1000", "CANCELLED"), ("CANCELLED+", "CANCELLED"), ("", "UNKNOWN")])
def test_the_state_loses_what_accounting_adds(text, expected):
    assert squeue.word(text) == expected


def test_a_failing_squeue_is_no_answer_and_an_empty_one_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    install(tmp_path, "squeue", "exit 1")
    assert squeue.ask("run") is None
    install(tmp_path, "squeue", "exit 0")
    assert squeue.ask("run") == {}


def test_an_absent_squeue_is_no_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert squeue.ask("run") is None


def test_a_squeue_that_hangs_is_no_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(squeue, "SECONDS", 0.2)
    install(tmp_path, "squeue", "exec sleep 30")
    assert squeue.ask("run") is None


def test_the_users_own_display_settings_do_not_count(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SQUEUE_SORT", "i")
    install(tmp_path, "squeue", 'echo "1|RUNNING|0:01|1:00|n1|${SQUEUE_SORT:-none}"')
    assert squeue.ask("run")["1"].reason == "none"


def test_accounting_gives_the_last_record_and_none_without_a_database(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    install(tmp_path, "sacct", "echo 'REQUEUED|00:00:10|01:00:00|n1'; echo 'CANCELLED by 0|00:00:20|01:00:00|n2'")
    assert squeue.accounted("7") == squeue.Record("CANCELLED", 20.0, 3600.0, "n2")
    install(tmp_path, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert squeue.accounted("7") is None
