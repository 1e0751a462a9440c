"""Load a model and its tokenizer for training or calibration: offline, float32 weights, the right attention."""

import json
from pathlib import Path
from typing import Any

import torch

from mergebench.training import distributed


def load_model(weights: Path) -> Any:
    """The causal language model of a weights folder, float32, on this process's accelerator if there is one.

    Gemma-2 gets eager attention (its soft-capped scores have no fused kernel), everything else SDPA.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # `Job.progress` speaks instead
    architecture = json.loads((weights / "config.json").read_text(encoding="utf-8"))["model_type"]
    attention = "eager" if architecture == "gemma2" else "sdpa"
    model: Any = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32, attn_implementation=attention, local_files_only=True)
    return model.to(distributed.device())


def load_tokenizer(weights: Path) -> Any:
    """The tokenizer of a weights folder; one without a padding token pads with its end-of-sequence token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights, local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
