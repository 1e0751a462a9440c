"""An attempt asks for more of what the last one lacked, and of nothing else."""

import os
import subprocess
import sys

import pytest

from mergebench.workflow import ends
from mergebench.workflow.ends import Reason
from mergebench.workflow.resources import Escalation

NAMES = {"base": "b", "model": "m"}
STEP_KILLED = "slurmstepd-n1: error: StepId=1.0 exceeded memory limit (642981888 > 314572800), being killed"
OOM_EVENT = "slurmstepd: error: Detected 1 oom_kill event in StepId=5.0. Some of the step tasks have been OOM Killed."


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.delenv(ends.VARIABLE, raising=False)
    ends.begin(tmp_path / "records")
    yield
    os.environ.pop(ends.VARIABLE)


@pytest.mark.parametrize(
    ("state", "log", "reason"),
    [
        ("OUT_OF_MEMORY", "", Reason.MEMORY),
        ("FAILED", STEP_KILLED, Reason.MEMORY),
        ("FAILED", OOM_EVENT, Reason.MEMORY),
        ("CANCELLED", STEP_KILLED, Reason.MEMORY),
        ("FAILED", "srun: error: n1: task 0: Out Of Memory", Reason.MEMORY),
        ("FAILED", "srun: error: n1: task 0: Killed", Reason.MEMORY),
        ("FAILED", "MemoryError", Reason.MEMORY),
        ("FAILED", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", Reason.ERROR),
        ("TIMEOUT", "srun: error: n1: task 0: Killed", Reason.TIME),
        ("CANCELLED", "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***", Reason.TIME),
        ("CANCELLED", "srun: error: n1: task 0: Killed", Reason.TAKEN),
        ("PREEMPTED", "", Reason.TAKEN),
        ("NODE_FAIL", None, Reason.TAKEN),
        ("FAILED", "ValueError: no such column", Reason.ERROR),
        ("FAILED", None, Reason.UNKNOWN),
        ("ERROR", None, Reason.UNKNOWN),
    ],
)
def test_the_reason_is_found_in_state_and_log(state, log, reason):
    assert ends.reason_of(state, log, seconds=60, limit=3600, notice=900) == reason


def test_a_job_that_could_not_be_started_again_needs_no_more():
    assert ends.reason_of("FAILED", "", seconds=60, limit=3600, notice=900, why="JobLaunchFailure") == Reason.TAKEN


@pytest.mark.parametrize(("seconds", "limit", "reason"), [(3100, 3600, Reason.TIME), (600, 3600, Reason.ERROR), (20, 60, Reason.ERROR)])
def test_a_job_that_stops_at_the_warning_before_its_limit_is_out_of_time(seconds, limit, reason):
    assert ends.reason_of("FAILED", "stopped", seconds, limit, notice=900) == reason


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        ([Reason.MEMORY], Escalation(2, 1)),
        ([Reason.TIME], Escalation(1, 2)),
        ([Reason.MEMORY, Reason.TIME], Escalation(2, 2)),
        ([Reason.MEMORY, Reason.MEMORY], Escalation(3, 1)),
        ([Reason.TAKEN, Reason.TAKEN], Escalation(1, 1)),
        ([Reason.ERROR], Escalation(1, 1)),
        ([Reason.UNKNOWN], Escalation(2, 2)),
        ([], Escalation(1, 1)),
    ],
)
def test_only_what_was_lacking_grows(record, reasons, expected):
    for reason in reasons:
        ends.record("train", NAMES, reason)
    assert ends.escalation("train", NAMES, len(reasons) + 1) == expected


def test_other_jobs_of_the_rule_and_other_rules_are_unmoved(record):
    ends.record("train", NAMES, Reason.MEMORY)
    assert ends.escalation("train", {**NAMES, "model": "other"}, 2) == Escalation()
    assert ends.escalation("tune", NAMES, 2) == Escalation()


def test_a_first_attempt_asks_for_no_more(record):
    ends.record("train", NAMES, Reason.UNKNOWN)
    assert ends.escalation("train", NAMES, 1) == Escalation()


def test_where_nobody_watches_both_grow_with_each_attempt(monkeypatch):
    monkeypatch.delenv(ends.VARIABLE, raising=False)
    assert ends.escalation("train", NAMES, 3) == Escalation(3, 3)


def test_the_job_itself_computes_what_was_asked_for_it(record):
    ends.record("train", NAMES, Reason.TIME)
    code = f"from mergebench.workflow import ends; print(ends.escalation('train', {NAMES!r}, 2))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(ends.escalation("train", NAMES, 2)) == "Escalation(memory=1, time=2)"


def test_records_of_old_runs_are_removed_and_those_of_others_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv(ends.VARIABLE, "")
    old, recent = tmp_path / "ends-n1-1-1.json", tmp_path / "ends-n1-2-2.json"
    for path in (old, recent):
        path.write_text("{}")
    os.utime(old, (0, 0))
    ends.begin(tmp_path)
    assert not old.exists()
    assert recent.exists()
