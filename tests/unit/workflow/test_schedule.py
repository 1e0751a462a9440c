"""List scheduling: never faster than possible, dependencies and capacities kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergebench.workflow.schedule import Task, finish_times


def test_a_chain_takes_the_sum():
    assert finish_times([Task(1, 1, ()), Task(2, 1, (0,)), Task(3, 0, (1,))], 8, 8) == [1, 3, 6]


def test_independent_jobs_share_the_gpus():
    assert max(finish_times([Task(1, 2, ())] * 6, gpus=4, slots=1)) == 3


def test_jobs_without_a_gpu_share_the_slots():
    assert max(finish_times([Task(1, 0, ())] * 6, gpus=1, slots=3)) == 2


def test_the_longest_chain_goes_first():
    tasks = [Task(1, 1, ()), Task(1, 1, ()), Task(5, 1, (1,))]
    assert max(finish_times(tasks, gpus=1, slots=1)) == 7
    assert finish_times(tasks, gpus=1, slots=1)[1] == 1


def test_a_job_larger_than_the_quota_takes_all_of_it():
    assert finish_times([Task(2, 8, ()), Task(2, 1, ())], gpus=4, slots=1) == [2, 4]


def test_finished_jobs_take_no_time():
    assert finish_times([Task(0, 0, ()), Task(3, 1, (0,))], gpus=1, slots=1) == [0, 3]


@pytest.mark.parametrize("gpus", [1, 3, 8])
@given(data=st.data())
def test_bounds_hold_for_any_graph(gpus, data):
    count = data.draw(st.integers(1, 25))
    tasks = [
        Task(
            data.draw(st.integers(0, 9)),
            data.draw(st.integers(0, 4)),
            tuple(sorted(data.draw(st.sets(st.integers(0, i - 1), max_size=3)))) if i else (),
        )
        for i in range(count)
    ]
    done = finish_times(tasks, gpus, 2)
    assert all(done[i] >= done[n] + task.seconds for i, task in enumerate(tasks) for n in task.needs)
    work = sum(task.seconds * min(task.gpus, gpus) for task in tasks)
    assert max(done) >= work / gpus
    assert max(done) <= sum(task.seconds for task in tasks)
    for moment in {d - t.seconds for d, t in zip(done, tasks, strict=True)}:
        running = [t for d, t in zip(done, tasks, strict=True) if d - t.seconds <= moment < d]
        assert sum(min(t.gpus, gpus) for t in running) <= gpus
        assert sum(not t.gpus for t in running) <= 2
