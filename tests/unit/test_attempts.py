"""Every attempt that fails leaves a line, whether it could say so or not, and a success drops the account."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mergebench import attempts
from mergebench.attempts import ENDED, RUNNING, Interrupted, interruptible, recorded
from mergebench.errors import MergebenchError

ROOT = Path(attempts.__file__).parents[1]


def lines(state: Path) -> list[dict]:
    return [json.loads(line) for line in (state / ENDED).read_text().splitlines()]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MergebenchError("data are missing; make them."), "data are missing; make them."),
        (ValueError("bad\nsecond line"), "ValueError: bad"),
        (Interrupted("SIGUSR1", 75), "SIGUSR1"),
        (KeyboardInterrupt(), "SIGINT"),
        (SystemExit(3), "exit status 3"),
    ],
    ids=["sentence", "error", "signal", "ctrl-c", "exit"],
)
def test_a_failure_is_written_down_with_its_reason(tmp_path, error, reason):
    with pytest.raises(type(error)), recorded(tmp_path, gpus=2):
        raise error
    (line,) = lines(tmp_path)
    assert line["reason"] == reason
    assert line["gpus"] == 2
    assert datetime.fromisoformat(line["start"]).tzinfo == UTC
    assert not (tmp_path / RUNNING).exists()


def test_sigterm_is_a_reason_and_leaves_with_its_status(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as left, recorded(tmp_path, gpus=0):
        signal.raise_signal(signal.SIGTERM)
    assert left.value.code == 143
    assert lines(tmp_path)[0]["reason"] == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_warning_of_a_time_limit_is_outlived():
    with interruptible():
        os.kill(os.getpid(), signal.SIGUSR1)


def test_a_forked_worker_dies_of_sigterm_as_ever():
    ready, tell = os.pipe()
    with interruptible():
        pid = os.fork()
        if pid == 0:
            os.write(tell, b"x")
            time.sleep(30)
            os._exit(0)
        os.read(ready, 1)
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM


def test_an_attempt_killed_outright_is_found_by_the_next(tmp_path):
    program = f"""
        import os, signal, sys
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from mergebench.attempts import recorded
        with recorded(Path({str(tmp_path)!r}), gpus=8):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    running = json.loads((tmp_path / RUNNING).read_text())
    began = datetime.fromisoformat(running["start"]).timestamp()
    os.utime(tmp_path / RUNNING, (began + 90, began + 90))  # it was last alive 90 seconds after its start
    with recorded(tmp_path, gpus=8) as attempt:
        (end,) = attempt.failed
        assert end["reason"].startswith("unknown")
        assert end["seconds"] == 90
        assert attempt.summary() == {"failed": 1, "wall_seconds": 90, "gpu_seconds": 720, "ends": [end]}


def test_an_attempt_killed_after_a_signal_ended_by_the_signal(tmp_path):
    start = "2026-01-01T00:00:00+00:00"
    (tmp_path / RUNNING).write_text(json.dumps({"start": start, "gpus": 1, "slurm_job_id": None}))
    attempts.signalled(tmp_path, "SIGTERM")
    with recorded(tmp_path, gpus=1) as attempt:
        (end,) = attempt.failed
    assert (end["start"], end["reason"]) == (start, "SIGTERM")
    assert end.keys() == {"start", "end", "seconds", "reason", "gpus", "slurm_job_id"}


def test_a_sign_of_life_moves_the_end_of_a_killed_attempt(tmp_path):
    (tmp_path / RUNNING).write_text("{}")
    os.utime(tmp_path / RUNNING, (0, 0))
    attempts.alive(tmp_path)
    assert time.time() - (tmp_path / RUNNING).stat().st_mtime < 60
    attempts.alive(tmp_path / "nowhere")


def test_success_drops_the_account_so_that_a_rerun_starts_afresh(tmp_path):
    with pytest.raises(MergebenchError), recorded(tmp_path, gpus=0):
        raise MergebenchError("no")
    with recorded(tmp_path, gpus=0) as second:
        assert len(second.failed) == 1
    with recorded(tmp_path, gpus=0) as third:
        assert third.failed == []


def test_a_damaged_account_is_no_obstacle(tmp_path):
    (tmp_path / RUNNING).write_text("{")
    (tmp_path / ENDED).write_text('{"reason": "no", "seconds": 1, "gpus": 0}\n{"rea')
    with recorded(tmp_path, gpus=0) as attempt:
        assert [end["reason"] for end in attempt.failed] == ["no"]


def test_restarts_are_attempts_of_the_same_slurm_job(tmp_path, monkeypatch):
    for job in ("7", "8", "8"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        with pytest.raises(Interrupted), recorded(tmp_path, gpus=1):
            raise Interrupted("SIGTERM", 143)
    with recorded(tmp_path, gpus=1) as attempt:
        assert (len(attempt.failed), attempt.restarts) == (3, 2)
    monkeypatch.delenv("SLURM_JOB_ID")
    with recorded(tmp_path, gpus=0) as attempt:
        assert attempt.restarts == 0
