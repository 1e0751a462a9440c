"""Say which setting to change when training has no memory left."""

import contextlib
import re
from collections.abc import Iterator

import torch

from mergebench.errors import MergebenchError
from mergebench.training import distributed
from mergebench.training.settings import GrpoSettings, SftSettings, TrainingSettings

# What torch says when the allocator of the host or a driver gives nothing; on GPUs it raises OutOfMemoryError.
_EXHAUSTED = re.compile(r"can't allocate memory|out of memory|not enough memory", re.IGNORECASE)


@contextlib.contextmanager
def explained(settings: TrainingSettings) -> Iterator[None]:
    """Turn an allocation that fails inside the block into a sentence with the settings that save memory.

    Raises:
        MergebenchError: memory ran out.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError) and not _EXHAUSTED.search(str(error)):
            raise
        where = "GPU" if isinstance(error, torch.OutOfMemoryError) else "host"
        said = str(error).splitlines()[0] if str(error) else "MemoryError"
        raise MergebenchError(f"training ran out of {where} memory ({said}). {advice(settings, distributed.world_size())}") from error


def advice(settings: TrainingSettings, processes: int) -> str:
    """What can still be changed, the cheapest first."""
    ways = []
    if settings.micro_batch_size != 1:
        ways.append(f"lower micro_batch_size (now {settings.micro_batch_size or 'as large as the batch allows'})")
    if settings.activation_checkpointing != "full":
        ways.append(f"set activation_checkpointing to full (now {settings.activation_checkpointing})")
    if settings.sharding != "zero3":
        ways.append(f"set sharding to zero3 with more GPUs (now {settings.sharding}, {processes} tasks)")
    else:
        ways.append(f"use more GPUs (now {processes} tasks)")
    if settings.sharding != "none" and settings.offload == "none":
        ways.append("set offload to optimizer")
    if isinstance(settings, SftSettings):
        ways.append(f"lower max_length (now {settings.max_length}), which also makes the tokens anew")
    if isinstance(settings, GrpoSettings):
        ways.append(f"lower max_completion_length (now {settings.max_completion_length})")
        if settings.vllm:
            ways.append(f"lower vllm_gpu_memory (now {settings.vllm_gpu_memory:g})")
    if settings.lora is None:
        ways.append("train adapters (lora)")
    return f"In this order: {'; '.join(ways)}."
