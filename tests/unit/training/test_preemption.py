"""Which checkpoint is resumed, and that signals are handled only while training."""

import os
import signal

import pytest

from mergebench.errors import MergebenchError
from mergebench.training.preemption import AGAIN, COMPLETE, Preempted, Signals, check_processes, mark_complete, newest_checkpoint


@pytest.fixture
def checkpoints(tmp_path):
    def make(step, complete=True):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"x" * 100)
        if complete:
            mark_complete(folder, "run")
        return folder

    return make


def test_without_checkpoints_training_starts_afresh(tmp_path):
    assert newest_checkpoint(tmp_path / "absent", "run") is None


def test_the_newest_complete_checkpoint_is_resumed(checkpoints, tmp_path):
    good = checkpoints(90)
    checkpoints(100, complete=False)
    assert newest_checkpoint(tmp_path, "run") == good


def test_steps_are_compared_as_numbers(checkpoints, tmp_path):
    checkpoints(9)
    good = checkpoints(10)
    assert newest_checkpoint(tmp_path, "run") == good


def test_a_truncated_file_disqualifies_a_checkpoint(checkpoints, tmp_path):
    (checkpoints(5) / "model.safetensors").write_bytes(b"x")
    assert newest_checkpoint(tmp_path, "run") is None


def test_a_broken_marker_disqualifies_a_checkpoint(checkpoints, tmp_path):
    (checkpoints(5) / COMPLETE).write_text("{")
    assert newest_checkpoint(tmp_path, "run") is None


def test_a_checkpoint_of_other_settings_is_not_resumed(checkpoints, tmp_path):
    checkpoints(5)
    assert newest_checkpoint(tmp_path, "another run") is None


def test_only_the_newest_complete_checkpoint_is_kept(checkpoints, tmp_path):
    checkpoints(5)
    checkpoints(7, complete=False)
    checkpoints(9)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-9"]


def test_handlers_are_put_back_after_training():
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
    assert signals.received == "SIGUSR1"
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_exit_code_means_again():
    assert Preempted("SIGTERM").code == AGAIN == 75


def test_a_divided_checkpoint_wants_as_many_processes(checkpoints):
    checkpoint = checkpoints(5, complete=False)
    mark_complete(checkpoint, "run", processes=4)
    check_processes(checkpoint, 4)
    with pytest.raises(
        MergebenchError, match=r"divided among 4 processes, now there are 2; start as many as before \(--tasks 4\), or delete"
    ):
        check_processes(checkpoint, 2)


def test_a_checkpoint_that_is_not_divided_takes_any_number(checkpoints):
    check_processes(checkpoints(5), 3)
