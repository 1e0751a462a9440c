"""Out of memory: a sentence with what can still be changed; other errors pass."""

import pytest
import torch

from mergebench.errors import MergebenchError
from mergebench.training.memory import explained
from mergebench.training.settings import GrpoSettings, LoraSettings, SftSettings

SFT = SftSettings(learning_rate=1)


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"), r"GPU memory \(CUDA out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "host memory"),
        (MemoryError(), r"host memory \(MemoryError\)"),
    ],
)
def test_running_out_of_memory_names_settings(error, where):
    settings = r"micro_batch_size .*activation_checkpointing .*sharding .*max_length"
    with pytest.raises(MergebenchError, match=rf"ran out of {where}.*{settings}"), explained(SFT):
        raise error


def test_a_real_failed_allocation_is_explained():
    with pytest.raises(MergebenchError, match="ran out of host memory"), explained(SFT):
        torch.empty(1 << 60, dtype=torch.uint8)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"), explained(SFT):
        raise RuntimeError("shapes differ")


def test_what_is_set_already_is_not_proposed():
    tight = GrpoSettings(
        learning_rate=1,
        micro_batch_size=1,
        activation_checkpointing="full",
        sharding="zero3",
        offload="optimizer",
        lora=LoraSettings(),
        vllm=True,
    )
    with pytest.raises(MergebenchError) as raised, explained(tight):
        raise MemoryError
    advice = str(raised.value).partition("In this order: ")[2]
    assert advice == "use more GPUs (now 1 tasks); lower max_completion_length (now 1024); lower vllm_gpu_memory (now 0.35)."
