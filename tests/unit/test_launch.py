"""How tasks are started and find their places, with and without Slurm, and which error is the job's."""

import os
import signal
import stat

import pytest

from mergebench import launch
from mergebench.artifacts import Job
from mergebench.attempts import Interrupted
from mergebench.errors import MergebenchError
from mergebench.launch import PORTS, Tasks, address, first_host, local_place, slurm_place


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu7", "gpu7"),
        ("gpu03,gpu04", "gpu03"),
        ("gpu[03-05,9],cpu1", "gpu03"),
        ("gpu[12]", "gpu12"),
        ("rack[2,4]n[001-016]", "rack2n001"),
        ("a-b[1-2].site.org,c", "a-b1.site.org"),
    ],
)
def test_the_first_host_of_slurms_lists(nodes, first):
    assert first_host(nodes) == first


SLURM = {
    "SLURM_PROCID": "11",
    "SLURM_NTASKS": "16",
    "SLURM_LOCALID": "3",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_JOB_ID": "123456",
}


@pytest.mark.parametrize(("visible", "local"), [(8, "3"), (1, "0"), (0, "3")], ids=["whole node", "bound", "no GPU"])
def test_a_task_of_srun_finds_its_place(visible, local):
    place = slurm_place(SLURM, visible)
    assert place == {
        "RANK": "11",
        "WORLD_SIZE": "16",
        "LOCAL_RANK": local,
        "LOCAL_WORLD_SIZE": "8",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "23456",
    }


def test_neighbouring_jobs_meet_at_different_ports_below_the_systems_own():
    ports = [int(slurm_place(SLURM | {"SLURM_JOB_ID": str(job)}, 8)["MASTER_PORT"]) for job in range(5_000, 5_100)]
    assert len(set(ports)) == 100
    assert max(PORTS) < 32_768


def test_a_node_without_a_known_name_is_reached_by_the_launchers_address():
    assert address("no-such-host.invalid", "10.0.0.5") == "10.0.0.5"
    assert address("localhost", "10.0.0.5") == "localhost"


def test_local_tasks_have_distinct_places():
    places = [local_place(rank, 2, 20_001) for rank in range(2)]
    assert [place["RANK"] for place in places] == ["0", "1"]
    assert {place["MASTER_PORT"] for place in places} == {"20001"}


def test_srun_repeats_what_the_allocation_has():
    words = Tasks(["run"], 16, 2, 8).srun(gpus=16)
    for flag in ("--nodes=2", "--ntasks=16", "--ntasks-per-node=8", "--cpus-per-task=8", "--gpus-per-node=8", "--kill-on-bad-exit=1"):
        assert flag in words
    assert not any("gpu" in word for word in Tasks(["run"], 2, 1, 1).srun(gpus=0))


def job(tmp_path, stage="train", **requested) -> Job:
    return Job(stage, {}, {}, {}, tmp_path, requested=requested)


@pytest.mark.parametrize(
    ("tasks", "nodes", "stage", "visible", "sentence"),
    [
        (2, 1, "evaluate", "", "stage evaluate runs as one task"),
        (3, 2, "train", "", "do not spread evenly over --nodes 2"),
        (4, 2, "train", "", "needs a Slurm allocation"),
        (4, 1, "train", "0,1", "need a GPU each, and 2 are visible"),
    ],
    ids=["stage", "uneven", "nodes", "gpus"],
)
def test_what_cannot_be_met_is_refused_before_anything_starts(tmp_path, monkeypatch, tasks, nodes, stage, visible, sentence):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(MergebenchError, match=sentence):
        Tasks(["run"], tasks, nodes, 1).run(job(tmp_path, stage))


def test_inside_an_allocation_srun_starts_the_tasks(tmp_path, monkeypatch):
    program = tmp_path / "bin/srun"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\nexit 3\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with pytest.raises(MergebenchError, match="ended with status 3"):
        Tasks(["run", "train", "--tasks", "4"], 4, 2, 1).run(job(tmp_path, gpu=4))
    called = (tmp_path / "called").read_text()
    assert "--nodes=2 --ntasks=4 --ntasks-per-node=2" in called
    assert called.index("mergebench.launch") < called.index("run train --tasks 4")


def done(rank, error=None, interrupted=None, status=0) -> dict:
    return {"rank": rank, "error": error, "interrupted": interrupted, "status": status, "usage": {"host": "n1"}}


@pytest.mark.parametrize(
    ("records", "caught", "failure", "sentence"),
    [
        ([done(0), done(1, error="no data.", status=1)], [], 1, "task 1 of 2 on n1: no data."),
        ([done(0, error="connection lost", status=1)], [], -9, "was killed by SIGKILL"),
        ([done(0, error="Connection reset by peer", status=1)], [], 137, "Task 1 left no report: it may have been killed first"),
        ([done(0)], [], 0, "1 of 2 tasks reported"),
    ],
    ids=["error", "killed", "lost", "silent"],
)
def test_the_cause_is_told_rather_than_its_consequence(records, caught, failure, sentence):
    with pytest.raises(MergebenchError, match=sentence):
        launch._raise_for(records, caught, failure, 2)


def test_a_saved_interruption_asks_for_the_same_command_again():
    records = [done(0, interrupted="a signal to another task", status=75), done(1, interrupted="SIGUSR1", status=75)]
    with pytest.raises(Interrupted) as end:
        launch._raise_for(records, [], 0, 2)
    assert (end.value.code, end.value.reason) == (75, "SIGUSR1")


def test_tasks_that_die_of_a_signal_passed_on_are_an_interruption():
    with pytest.raises(Interrupted) as end:
        launch._raise_for([], [signal.SIGTERM], -15, 2)
    assert (end.value.code, end.value.reason) == (143, "SIGTERM")


def test_all_done_is_no_error():
    assert launch._raise_for([done(0), done(1)], [], 0, 2) is None
