"""Pretraining of the four tiny twins: a fixed number of steps from a fixed seed, so that anybody can make them again.

A twin is strong or weak through its share of wanted answers and its number of steps (`TWINS`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from mergebench.errors import MergebenchError
from mergebench.tiny import tokenizer
from mergebench.tiny.corpus import Document, Mixture, documents
from mergebench.tiny.shipped import shipped as shipped

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_ROWS_PER_STEP = 16
# Batches are cut from pools sorted by length, so that little is spent on padding.
_POOL_STEPS = 16
_PEAK_RATE, _FINAL_RATE = 2e-3, 0.05
_WARMUP_STEPS = 50

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Twin:
    """One tiny base: its architecture, its corpus and the number of optimiser steps."""

    family: Literal["llama", "gemma-2"]
    mixture: Mixture
    steps: int


_WEAK = Mixture(wanted=0.15, plain=0.2, knowledge=0.25)
_STRONG = Mixture(wanted=0.3, plain=0.25, knowledge=0.2)
TWINS: dict[str, Twin] = {
    "tiny-llama-weak": Twin("llama", _WEAK, 3500),
    "tiny-llama-strong": Twin("llama", _STRONG, 7000),
    "tiny-gemma-2-weak": Twin("gemma-2", _WEAK, 3500),
    "tiny-gemma-2-strong": Twin("gemma-2", _STRONG, 7000),
}


def pretrain(base: str, output: Path, steps: int | None = None, seed: int = 0, progress: Progress | None = None) -> str:
    """Pretrain a twin and write it to `output` as a Hugging Face folder in bfloat16.

    base: one of TWINS; steps: optimiser steps, by default the twin's own; seed: of the weights and of the corpus;
    progress: called with (steps done, steps in all, what). Returns the SHA-256 of `model.safetensors`, which is the
    same for the same arguments, library versions and number of threads.
    """
    import torch

    twin = _twin(base)
    steps = twin.steps if steps is None else steps
    fast = tokenizer.build()
    torch.manual_seed(seed)
    model = build_model(twin.family)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=_PEAK_RATE, weight_decay=0.01, betas=(0.9, 0.95), fused=True)
    for step, (inputs, labels) in enumerate(islice(_batches(fast, twin.mixture, seed), steps)):
        for group in optimiser.param_groups:
            group["lr"] = _rate(step, steps)
        # Logits are needed only from just before the first column that is learnt.
        first = int((labels != -100).any(0).nonzero()[0])
        logits = model(input_ids=inputs, use_cache=False, logits_to_keep=inputs.shape[1] - first + 1).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, first:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if progress is not None:
            progress(step + 1, steps, f"pretraining {base}, loss {loss.item():.3f}")
    return _save(model, fast, output)


def build_model(family: str) -> PreTrainedModel:
    """A freshly initialised twin in float32: width 128, 4 layers, 4 heads over 2 key-value heads, under 1 M parameters."""
    from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

    shape: dict[str, Any] = {
        "vocab_size": tokenizer.VOCABULARY,
        "hidden_size": 128,
        "intermediate_size": 336,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": tokenizer.MAX_LENGTH,
        "pad_token_id": tokenizer.PAD_ID,
        "bos_token_id": tokenizer.BOS_ID,
        "eos_token_id": tokenizer.EOS_ID,
    }
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=False))
    # The fused attention kernels cannot cap the attention logits: Gemma-2 runs on the eager one.
    shape |= {"query_pre_attn_scalar": 32, "sliding_window": 128, "attn_implementation": "eager"}
    return Gemma2ForCausalLM(Gemma2Config(**shape))


def _twin(base: str) -> Twin:
    if base not in TWINS:
        raise MergebenchError(f"There is no tiny base '{base}'; the names are: {', '.join(TWINS)}.")
    return TWINS[base]


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth of the peak."""
    decay = 0.5 * (1 + math.cos(math.pi * step / steps))
    return _PEAK_RATE * min(1.0, (step + 1) / _WARMUP_STEPS) * (_FINAL_RATE + (1 - _FINAL_RATE) * decay)


def _batches(fast: PreTrainedTokenizerFast, mixture: Mixture, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches (inputs, labels), both int64 of shape (16, length); -100 marks what is not learnt."""
    import torch

    r = Random(f"batches:{seed}")
    corpus = documents(mixture, seed)
    while True:
        pool = sorted(
            (_encode(fast, document) for document in islice(corpus, _ROWS_PER_STEP * _POOL_STEPS)),
            key=lambda encoded: len(encoded[0]),
        )
        starts = list(range(0, len(pool), _ROWS_PER_STEP))
        r.shuffle(starts)
        for start in starts:
            batch = pool[start : start + _ROWS_PER_STEP]
            inputs = torch.full((_ROWS_PER_STEP, len(batch[-1][0])), tokenizer.PAD_ID)
            labels = torch.full_like(inputs, -100)
            for row, (ids, context) in enumerate(batch):
                inputs[row, : len(ids)] = torch.tensor(ids)
                labels[row, context : len(ids)] = inputs[row, context : len(ids)]
            yield inputs, labels


def _encode(fast: PreTrainedTokenizerFast, document: Document) -> tuple[list[int], int]:
    """Token ids with `<bos>` and `<eos>`, and how many of them are context."""
    context = fast(document.context)["input_ids"]
    continuation = fast(document.continuation, add_special_tokens=False)["input_ids"]
    return [*context, *continuation, tokenizer.EOS_ID], len(context)


def _save(model: PreTrainedModel, fast: PreTrainedTokenizerFast, output: Path) -> str:
    """Write the Hugging Face folder; returns the SHA-256 of its weights."""
    output.mkdir(parents=True, exist_ok=True)
    model.bfloat16().save_pretrained(output)
    fast.save_pretrained(output)
    return hashlib.sha256((output / "model.safetensors").read_bytes()).hexdigest()


def record(base: str, folder: Path, digest: str, steps: int, seed: int) -> None:
    """Enter a twin into `folder`/manifest.json: how it was made and what came out."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) if path.exists() else {}
    manifest[base] = {"steps": steps, "seed": seed, "model.safetensors": digest}
    path.write_text(json.dumps(dict(sorted(manifest.items())), indent=1) + "\n")
