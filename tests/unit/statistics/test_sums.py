"""Sums over rows: in fixed lanes, kept while they grow, taken up again."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch

from mergebench.merging.statistics.parts import Parts
from mergebench.merging.statistics.settings import Execution
from mergebench.merging.statistics.sums import LANES, lanes, sum_rows
from mergebench.merging.statistics.task import Task
from mergebench.training.preemption import Preempted, Signals

ROWS = 50
VALUES = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))


class Killed(Exception):
    pass


def task(folder, save_seconds=600, signals=None):
    parts = Parts(folder, "key")
    parts.begin()
    made = Task(None, "test", None, Execution(save_seconds=save_seconds), None, None, None, [], 0, parts, signals or Signals())
    return SimpleNamespace(parts=parts, signals=made.signals, execution=made.execution, leave=made.leave, progress=lambda *_, **__: None)


def summed(task, *, batch_rows=1, before=lambda done: None):
    """The sum of the rows, and the rows that were added for it, in order."""
    seen = []

    def add(sums, rows):
        before(len(seen))
        for row in rows:
            sums["x"] += VALUES[row]
        seen.extend(rows)

    result = sum_rows(task, "unit", ROWS, lambda: {"x": torch.zeros(3)}, add, batch_rows=batch_rows)
    return result["x"], seen


def test_lanes_deal_every_row_once():
    assert sorted(row for lane in lanes(ROWS) for row in lane) == list(range(ROWS))
    assert len(lanes(ROWS)) == LANES
    assert lanes(2) == [[0], [1]]
    assert lanes(0) == []


def test_the_sum_is_that_of_all_rows(tmp_path):
    total, seen = summed(task(tmp_path))
    torch.testing.assert_close(total.double(), VALUES.double().sum(0), rtol=1e-6, atol=1e-6)
    assert sorted(seen) == list(range(ROWS))


def test_batches_change_nothing(tmp_path):
    one, _ = summed(task(tmp_path))
    assert torch.equal(summed(task(tmp_path), batch_rows=3)[0], one)


@pytest.mark.parametrize("dies_at", [1, 17, 49])
def test_a_killed_sum_goes_on_from_what_was_saved(tmp_path, dies_at):
    whole, _ = summed(task(tmp_path / "whole"))

    def die(done):
        if done == dies_at:
            raise Killed

    with pytest.raises(Killed):
        summed(task(tmp_path, save_seconds=0), before=die)
    total, seen = summed(task(tmp_path))
    assert torch.equal(total, whole)
    assert len(seen) == ROWS - dies_at


def test_without_a_saving_a_killed_sum_begins_anew(tmp_path):
    def die(done):
        if done == 9:
            raise Killed

    with pytest.raises(Killed):
        summed(task(tmp_path), before=die)
    assert len(summed(task(tmp_path))[1]) == ROWS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_leaves_with_the_status_that_means_again(tmp_path, number):
    whole, _ = summed(task(tmp_path / "whole"))

    def stop(done):
        if done == 20:
            os.kill(os.getpid(), number)

    with Signals() as signals, pytest.raises(Preempted) as left:
        summed(task(tmp_path, signals=signals), before=stop)
    assert left.value.code == 75
    assert left.value.reason == number.name
    total, seen = summed(task(tmp_path))
    assert torch.equal(total, whole)
    assert len(seen) == ROWS - 21


def test_a_truncated_saving_is_not_believed(tmp_path):
    def die(done):
        if done == 20:
            raise Killed

    with pytest.raises(Killed):
        summed(task(tmp_path, save_seconds=0), before=die)
    for path in tmp_path.rglob("*.state"):
        path.write_bytes(path.read_bytes()[:-2])
    total, seen = summed(task(tmp_path))
    assert len(seen) == ROWS
    assert torch.equal(total, summed(task(tmp_path / "whole"))[0])
