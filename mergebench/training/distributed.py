"""The processes that train one model together: which one this is, and how they agree.

`mergebench.launch` starts them and sets the variables read here; TRL and Accelerate join them to a process group
(NCCL on GPUs, gloo on the CPU) and average their gradients. A process on its own is the main one of a world of one.
"""

import os

import torch
import torch.distributed as dist

if not torch.cuda.is_available():
    # DeepSpeed, which Accelerate imports where it is installed, looks for an accelerator by trial, aloud.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")


def rank() -> int:
    """Place of this process among all, from 0."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes checkpoints, logs and the model."""
    return rank() == 0


def device() -> torch.device:
    """The GPU of this process, or the CPU where there is none."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")


def any_of(*flags: bool) -> tuple[bool, ...]:
    """Each flag as it is in any process; all processes must ask."""
    if not dist.is_initialized():
        return flags
    shared = torch.tensor(flags, dtype=torch.float32, device=device())
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return tuple(bool(value) for value in shared.tolist())


def as_main_has_it(value: str | None) -> str | None:
    """The main process's value: on a shared file system two nodes may not see the same files at once."""
    if not dist.is_initialized():
        return value
    shared = [value]
    dist.broadcast_object_list(shared, src=0, device=device())
    return shared[0]


def wait_for_all() -> None:
    """Return when every process has come here."""
    if dist.is_initialized():
        dist.barrier()


def leave() -> None:
    """End the process group, with all others; what follows is for the main process alone."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
