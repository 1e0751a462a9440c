"""The processes that measure one statistic together: their group, and sums that do not depend on how many there are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist

from mergebench.training import distributed


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """A process group for the block where the launcher has started several processes: NCCL on GPUs, gloo on the CPU."""
    if distributed.world_size() == 1 or dist.is_initialized():
        yield
        return
    device = distributed.device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    try:
        yield
        distributed.wait_for_all()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def agreed(value: bool) -> bool:
    """The main process's answer; all processes must ask."""
    return distributed.as_main_has_it("yes" if value else None) is not None


def add_in_order(total: dict[str, torch.Tensor], own: Mapping[str, torch.Tensor] | None, owners: int) -> None:
    """Add the tensors of processes 0 to `owners` - 1, one process after the other, to the main process's `total`, on the host.

    Args:
        total: Name -> sum, in the host's memory; empty before the first call. Of the main process alone; empty elsewhere.
        own: This process's tensors, on its device, all of the same names and shapes; None in processes from `owners` on.
    """
    rank = distributed.rank()
    if rank and own is not None:
        for name in sorted(own):
            dist.send(own[name].contiguous(), dst=0)
        return
    if rank:
        return
    assert own is not None
    for sender in range(owners):
        for name in sorted(own):
            part = own[name]
            if sender:
                part = torch.empty_like(own[name], memory_format=torch.contiguous_format)
                dist.recv(part, src=sender)
            if name in total:
                total[name].add_(part.cpu())
            else:
                # A copy even where the sum is on the host already: its owner goes on adding to it, or clears it.
                total[name] = part.detach().to("cpu", copy=True)
