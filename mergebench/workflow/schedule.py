"""List scheduling: how long a DAG of jobs takes on so many GPUs."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A job as the schedule sees it: wall seconds, GPUs, and the positions of the jobs that it waits for."""

    seconds: float
    gpus: int
    needs: tuple[int, ...]


def finish_times(tasks: Sequence[Task], gpus: int, slots: int) -> list[float]:
    """Seconds after which each task is done, if a free GPU always takes the ready task with the longest way still to go.

    Args:
        tasks: in any order; the graph has no cycle.
        gpus: GPUs in all; a task that wants more gets these.
        slots: tasks without a GPU that run at once.
    """
    followers: list[list[int]] = [[] for _ in tasks]
    waiting = [len(task.needs) for task in tasks]
    for number, task in enumerate(tasks):
        for needed in task.needs:
            followers[needed].append(number)
    rest = _ways(tasks, followers)
    ready = {True: _heap(), False: _heap()}
    free = {True: gpus, False: slots}

    def release(number: int) -> None:
        heapq.heappush(ready[tasks[number].gpus > 0], (-rest[number], number))

    for number, count in enumerate(waiting):
        if not count:
            release(number)
    now, running, done = 0.0, _heap(), [0.0] * len(tasks)
    while running or any(ready.values()):
        for kind, queue in ready.items():
            while queue and (size := _size(tasks[queue[0][1]], gpus)) <= free[kind]:
                number = heapq.heappop(queue)[1]
                free[kind] -= size
                heapq.heappush(running, (now + tasks[number].seconds, number))
        now, number = heapq.heappop(running)
        done[number] = now
        free[tasks[number].gpus > 0] += _size(tasks[number], gpus)
        for follower in followers[number]:
            waiting[follower] -= 1
            if not waiting[follower]:
                release(follower)
    return done


def _heap() -> list[tuple[float, int]]:
    return []


def _size(task: Task, gpus: int) -> int:
    return min(task.gpus, gpus) or 1


def _ways(tasks: Sequence[Task], followers: Sequence[Sequence[int]]) -> list[float]:
    """Seconds from the start of each task to the end of the longest chain behind it."""
    rest = [0.0] * len(tasks)
    open_followers = [len(f) for f in followers]
    queue = [number for number, count in enumerate(open_followers) if not count]
    while queue:
        number = queue.pop()
        rest[number] = tasks[number].seconds + max((rest[f] for f in followers[number]), default=0.0)
        for needed in tasks[number].needs:
            open_followers[needed] -= 1
            if not open_followers[needed]:
                queue.append(needed)
    return rest
