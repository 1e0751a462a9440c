"""Load a model and its tokenizer for training or calibration: offline, with the right attention."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch

from mergebench.training import distributed


def load_model(weights: Path, *, dtype: torch.dtype = torch.float32, half_precision: bool = False) -> Any:
    """The causal language model of a weights folder, on this process's accelerator if there is one.

    Args:
        weights: folder of safetensors.
        dtype: of the weights in memory.
        half_precision: whether the arithmetic will be bfloat16, which FlashAttention needs.

    Where DeepSpeed divides the weights among processes (`sharding.start`, and arguments that say so, come before), each
    process keeps its part alone.
    """
    from transformers import AutoModelForCausalLM
    from transformers.integrations import is_deepspeed_zero3_enabled
    from transformers.utils import logging

    logging.disable_progress_bar()  # `Job.progress` speaks instead
    model: Any = AutoModelForCausalLM.from_pretrained(
        weights, dtype=dtype, attn_implementation=attention(weights, half_precision), local_files_only=True
    )
    return model if is_deepspeed_zero3_enabled() else model.to(distributed.device())


def attention(weights: Path, half_precision: bool = False) -> str:
    """The kernel for a model here.

    FlashAttention 2 where it is installed and can be used: its memory grows with the length of the samples in a packed row,
    that of the others with the square of the row's. Else SDPA, except for Gemma-2, whose soft-capped scores only the plain one has.
    """
    architecture = json.loads((weights / "config.json").read_text(encoding="utf-8"))["model_type"]
    if half_precision and torch.cuda.is_available() and importlib.util.find_spec("flash_attn"):
        return "flash_attention_2"
    return "eager" if architecture == "gemma2" else "sdpa"


def load_tokenizer(weights: Path) -> Any:
    """The tokenizer of a weights folder; one without a padding token pads with its end-of-sequence token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights, local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
