"""Which layer of a model, and which kind of module, a tensor belongs to."""

from __future__ import annotations

import re

from mergebench.checkpoints.reader import EMBEDDING, HEAD

# What a model's parameters are for, by how Llama, Gemma, Qwen and Mistral name them; the order is that of a forward pass.
EMBEDDINGS, NORMS, OUTPUT, OTHER = "embedding", "norms", "head", "other"
MODULES = (EMBEDDINGS, "q", "k", "v", "o", "gate", "up", "down", NORMS, OUTPUT, OTHER)
_PROJECTION = re.compile(r"(?:self_attn\.([qkvo])|mlp\.(gate|up|down))_proj\.(?:weight|bias)$")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def module_of(name: str) -> str:
    """The kind of module that a tensor belongs to, one of `MODULES`."""
    if projection := _PROJECTION.search(name):
        return projection[1] or projection[2]
    if name.endswith(EMBEDDING):
        return EMBEDDINGS
    if name.endswith(HEAD):
        return OUTPUT
    return NORMS if "norm" in name.rpartition(".")[0].rpartition(".")[2] else OTHER


def layer_of(name: str) -> int | None:
    """The number of the layer that a tensor belongs to, from 0; None outside the layers."""
    found = _LAYER.search(name)
    return int(found[1]) if found else None
