"""A cost record counts every process of a job, on the node that holds most, and the GPUs that nobody else could use."""

import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from mergebench import costs
from mergebench.attempts import Attempt
from mergebench.costs import PeakMemory, cost_record, gpus_held, gpus_visible, tree_bytes

MB = 1_000_000


def usage(host: str, megabytes: int, **other) -> dict:
    seen = {"joules": {"gpu": {"x": 50.0}, "cpu_package": {}}, "cores": 8, "cores_held": 8}
    return {"host": host, "cpu_seconds": 10.0, "peak_rss_bytes": megabytes * MB, "gpus_visible": 4, "gpu_peak_bytes": 5, **seen, **other}


class Meter:
    """Counters of this process: of GPU x, less than what others have seen of it, and of a package."""

    def joules(self) -> dict:
        return {"gpu": {"x": 30.0}, "cpu_package": {"p": 9.0}}


def record(ranks=(), requested=None, memory=None) -> dict:
    attempt = Attempt(datetime(2026, 1, 1, tzinfo=UTC), 0, [])
    return cost_record({"stage": "train"}, 100.0, memory or PeakMemory(), Meter(), attempt, requested or {}, ranks, {"load": 1.00049})


def test_memory_of_children_counts_while_they_hold_it():
    hold = f"block = bytearray(100 * {MB}); print(flush=True); input()"
    before = tree_bytes(os.getpid())
    with PeakMemory() as memory:
        children = [subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
        for child in children:
            child.stdout.readline()
        during = tree_bytes(os.getpid())
        memory._peak = max(memory._peak, during)  # as the sampler does every second
        for child in children:
            child.communicate(b"\n")
    assert during - before > 200 * MB
    assert memory.bytes >= during
    assert tree_bytes(os.getpid()) < during - 150 * MB


def test_what_a_large_parent_held_is_not_counted():
    """`ru_maxrss` of a program begins with the memory of the process that started it."""
    ask = "from mergebench.costs import own_peak_bytes; print(own_peak_bytes())"
    start = f"import subprocess, sys; block = bytearray(500 * {MB}); subprocess.run([sys.executable, '-c', {ask!r}], check=True)"
    shown = subprocess.run([sys.executable, "-c", start], check=True, capture_output=True, text=True).stdout
    assert 5 * MB < int(shown) < 300 * MB


def test_the_sampler_sees_memory_that_is_let_go_again(monkeypatch):
    monkeypatch.setattr(costs, "SAMPLED_EVERY", 0.01)
    seen = iter([3 * 2**40, 1])
    monkeypatch.setattr(costs, "tree_bytes", lambda pid: next(seen, 1))
    with PeakMemory() as memory:
        pass
    assert memory.bytes == 3 * 2**40


def test_tasks_of_one_node_share_its_memory_and_those_of_several_do_not():
    big = 2**20  # MB, so that the test's own memory does not matter
    done = record([usage("a", big), usage("a", 2 * big), usage("b", big)])
    assert done["peak_rss_bytes"] == 3 * big * MB
    assert done["cpu_seconds"] >= 30
    assert done["gpu_peak_bytes"] == 15
    assert done["run"]["hosts"] == ["a", "b"]
    assert done["run"]["tasks"] == 3
    assert done["run"]["gpus_visible"] == 8


def test_a_single_process_speaks_for_itself(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    done = record(requested={"mem_mb": 1000, "gpu": 1})
    assert done["run"]["hosts"] == [os.uname().nodename]
    assert done["run"]["tasks"] == 1
    assert done["requested"] == {"mem_mb": 1000, "gpu": 1}
    assert done["timing"] == {"load": 1.0}
    assert done["gpu_seconds"] == 0, "there is no GPU to hold"


def test_energy_is_that_of_the_gpus_held_and_of_all_nodes(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("SLURMD_NODENAME", "a")
    one = record([usage("a", 1)], {"gpu": 1, "threads": 8})["energy_joules"]
    assert (one["gpu"], one["cpu_package"]) == (50.0, 9.0)
    two = record([usage("a", 1), usage("b", 1)], {"gpu": 2})["energy_joules"]
    assert (two["gpu"], two["cpu_package"]) == (100.0, None)
    assert record([usage("a", 1)], {"gpu": 4})["energy_joules"]["gpu"] is None


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("NoDevFiles", 0), ("0", 1), ("2,3", 2), ("GPU-8f1,GPU-77a", 2)])
def test_visible_gpus_are_those_of_the_variable(monkeypatch, visible, count):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_visible() == count


def test_gpus_are_held_as_requested_where_there_are_any(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert gpus_held({"gpu": 16}) == 16, "those of all nodes"
    assert gpus_held({"gpu": 0}) == 0
    assert record(requested={"gpu": 16})["gpu_seconds"] == 1600
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus_held({"gpu": 16}) == 0
