"""Sums over calibration rows that do not depend on the number of processes, and that survive being killed.

Row i belongs to lane i mod `LANES`. The rows of a lane are added in order, in the dtype of the sums; the sums of the lanes are then added
in order. A process works at a whole lane, so one process and eight do the same additions in the same order. Two levels of
summation also keep the rounding error of float32 below that of one long sum.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from mergebench.merging.statistics.processes import add_in_order
from mergebench.training import distributed

if TYPE_CHECKING:
    from mergebench.merging.statistics.task import Task

LANES = 16  # part of the definition of a result: another number rounds otherwise
Tensors = dict[str, torch.Tensor]


def lanes(rows: int) -> list[list[int]]:
    """The rows of each lane that has any, in order."""
    return [list(range(lane, rows, LANES)) for lane in range(min(rows, LANES))]


def sum_rows(
    task: Task,
    unit: str,
    rows: int,
    zeros: Callable[[], Tensors],
    add: Callable[[Tensors, Sequence[int]], None],
    *,
    batch_rows: int = 1,
    what: str = "rows",
    flush: Callable[[], None] = lambda: None,
) -> Tensors:
    """The sum over rows 0 to `rows` - 1 of what `add` adds.

    Sums are kept in the job's state every `execution.save_seconds`, and before the job leaves at a signal; the same call then goes on
    from there, with as many processes as it now has.

    Args:
        task: The task; its parts keep the state.
        unit: Names the state, and is dropped with it (`Parts.save`).
        rows: Number of rows.
        zeros: Makes a lane's sums: name -> zeros, on the device, the same names in every process.
        add: Adds what these rows contribute, in the order given, to a lane's sums in place.
        batch_rows: Rows that `add` gets at once, all of one lane.
        what: Names the rows in the progress report.
        flush: Called before sums are kept: what else `add` has made of these rows must be kept first.

    Returns:
        Name -> sum, in the host's memory; in the main process alone, elsewhere empty.

    Raises:
        Preempted: A signal came to any process; the state is saved.
    """
    dealt, world, rank = lanes(rows), distributed.world_size(), distributed.rank()
    kept = task.parts.resume(unit) if rank == 0 else None
    total = {name: tensor.clone() for name, tensor in kept[0].items()} if kept else {}
    added = int(distributed.as_main_has_it(str(kept[1]["lanes"]) if kept else "0") or 0)
    before = done = sum(map(len, dealt[:added]))
    saved = time.monotonic()
    while added < len(dealt):
        owners = min(world, len(dealt) - added)
        lane = added + rank if rank < owners else None
        mine = dealt[lane] if lane is not None else []
        sums, place = _begin(task, unit, lane, zeros)
        longest = max(map(len, dealt[added : added + owners]))
        # Every process takes as many turns, so that all are asked at the same one whether to save and whether to stop.
        for start in range(0, longest, batch_rows):
            batch = mine[max(start, place) : start + batch_rows]
            if batch:
                assert sums is not None
                add(sums, batch)
                place = start + len(mine[start : start + batch_rows])
                done += owners * len(batch)
                task.progress(min(done, rows), rows, what, before=before)
            stop, due = distributed.any_of(task.signals.received is not None, time.monotonic() - saved > task.execution.save_seconds)
            if stop or due:
                flush()
                if lane is not None and sums is not None:
                    task.parts.checkpoint(f"{unit}/{lane}", sums, {"rows": place})
                if rank == 0 and total:
                    _keep_total(task, unit, total, added)
                saved = time.monotonic()
            if stop:
                task.leave()
        add_in_order(total, sums, owners)
        added += owners
        done = sum(map(len, dealt[:added]))
    return total


def _keep_total(task: Task, unit: str, total: Tensors, added: int) -> None:
    """Keep the sum of the first lanes; only then are they no longer needed one by one."""
    task.parts.checkpoint(unit, total, {"lanes": added})
    for lane in range(added):
        task.parts.drop(f"{unit}/{lane}")


def _begin(task: Task, unit: str, lane: int | None, zeros: Callable[[], Tensors]) -> tuple[Tensors | None, int]:
    """The sums of a lane and the number of its rows in them: from the state, or nothing yet."""
    if lane is None:
        return None, 0
    sums = zeros()
    kept = task.parts.resume(f"{unit}/{lane}")
    if kept is None:
        return sums, 0
    for name, tensor in kept[0].items():
        sums[name].copy_(tensor)
    return sums, int(kept[1]["rows"])
