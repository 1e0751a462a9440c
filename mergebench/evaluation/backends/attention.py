"""Attention masks and a key-value cache for batches in which the rows differ in length.

Masks are additive and four-dimensional, (batch, 1, queries, keys): 0 where a query may look, the dtype's
minimum where it may not. Transformers passes such a mask on unchanged, so one code path serves full, sliding-window
and soft-capped attention.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

Mask = torch.Tensor | dict[str, torch.Tensor]


def additive(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Boolean (batch, queries, keys) to an additive mask (batch, 1, queries, keys)."""
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min).unsqueeze(1)


def for_model(config: Any, allowed: torch.Tensor, distance: torch.Tensor, dtype: torch.dtype) -> Mask:
    """The mask, or the map of masks by layer type, that a model of this configuration takes.

    Args:
        config: the model's configuration (`layer_types`, `sliding_window`).
        allowed: bool (batch, queries, keys), what full attention may see.
        distance: int, broadcastable to `allowed`: position of the query minus position of the key.
        dtype: floating dtype of the model.
    """
    window = int(getattr(config, "sliding_window", None) or 0)
    types = set(getattr(config, "layer_types", None) or [])
    if "sliding_attention" in types:
        full = additive(allowed, dtype)
        narrow = full if int(distance.max()) < window else additive(allowed & (distance < window), dtype)
        return {"full_attention": full, "sliding_attention": narrow}
    if window and not types and getattr(config, "use_sliding_window", True):
        allowed = allowed & (distance < window)
    return additive(allowed, dtype)


class GrowingLayer(CacheLayerMixin):
    """Keys and values of one layer in a buffer of fixed capacity, so that a step copies one token and not all.

    Shapes: (batch, heads, capacity, head_dim). `select` drops finished rows.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        batch, heads, _, _ = key_states.shape
        self.keys = key_states.new_empty(batch, heads, self.capacity, key_states.shape[-1])
        self.values = value_states.new_empty(batch, heads, self.capacity, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        end = self.length + key_states.shape[2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def select(self, rows: torch.Tensor) -> None:
        """Keep the rows with these indices."""
        assert self.keys is not None
        assert self.values is not None
        self.keys, self.values = self.keys[rows], self.values[rows]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return self.capacity


def growing_cache(config: Any, capacity: int) -> Cache:
    """A cache with one `GrowingLayer` per layer of the model."""
    return Cache(layers=[GrowingLayer(capacity) for _ in range(config.num_hidden_layers)])
