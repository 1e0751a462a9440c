"""The stitching step that both variants of Localize-and-Stitch share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from mergebench.kernels.bits import MAGNITUDE, as_bits
from mergebench.kernels.compiled import compiled
from mergebench.merging.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Overlap = Literal["all", "last"]

# Entries that are summed at a time, so that the sums stay in a core's first cache.
TILE = 2048


def stitch(vectors: Tensor, masks: Tensor) -> Tensor:
    """sum_t gamma_t * tau_t / sum_j gamma_j: the mean, at each position, of the task vectors that selected it.

    Args:
        vectors: Task vectors, float32 (n, *shape).
        masks: gamma, bool (n, *shape).

    Returns:
        float32 (*shape); zero where no task selected the position.
    """
    total, overlap = torch.zeros_like(vectors[0]), torch.zeros_like(vectors[0])
    for vector, mask in zip(vectors, masks, strict=True):
        total = total + torch.where(mask, vector, 0.0)
        overlap = overlap + mask
    return total / overlap.clamp_min(1)


def stitch_released(vectors: Tensor, masks: Tensor, order: list[int]) -> Tensor:
    """As `stitch`, with the weights of the released code: 1 / (gamma_t + gamma_t * gamma_last), never 1 / n.

    Its loop over the other masks overwrites the intersection instead of adding it up, so that only the last other task counts.
    """
    total = torch.zeros_like(vectors[0])
    for row in order:
        others = [other for other in order if other != row]
        shared = masks[row] & masks[others[-1]] if others else torch.zeros_like(masks[row])
        weight = torch.where(masks[row], torch.where(shared, 0.5, 1.0), 0.0).to(vectors.dtype)
        total = total + weight * vectors[row]
    return total


@compiled
def stitch_largest(vectors, limits, out):  # type: ignore[no-untyped-def]
    """`stitch` of a block whose masks are the entries that reach their limits, as from `Block.limits` without spare entries.

    Returns:
        How many entries each mask selects, int64 (n,).
    """
    overlap = np.empty(TILE, np.float32)
    kept = np.zeros(vectors.shape[0], np.int64)
    for start in range(0, out.size, TILE):
        part = out[start : start + TILE]
        part[:], overlap[:] = np.float32(0), np.float32(0)
        for t in range(vectors.shape[0]):
            vector, limit = vectors[t, start : start + TILE], limits[t]
            count = 0
            for i in range(part.size):
                keep = (as_bits(vector[i]) & MAGNITUDE) >= limit
                part[i] += vector[i] if keep else np.float32(0)
                overlap[i] += np.float32(keep)
                count += keep
            kept[t] += count
        for i in range(part.size):
            part[i] /= max(overlap[i], np.float32(1))
    return kept


@compiled
def stitch_nonzero(trimmed, out):  # type: ignore[no-untyped-def]
    """`stitch` of a block whose masks are where the trimmed task vectors, float32 (n, m), are not zero."""
    overlap = np.empty(TILE, np.float32)
    out[:] = np.float32(0)
    for start in range(0, out.size, TILE):
        part = out[start : start + TILE]
        overlap[:] = np.float32(0)
        for t in range(trimmed.shape[0]):
            vector = trimmed[t, start : start + TILE]
            for i in range(part.size):
                part[i] += vector[i]
                overlap[i] += np.float32(vector[i] != 0)
        for i in range(part.size):
            part[i] /= max(overlap[i], np.float32(1))


@compiled
def stitch_selected(vectors, masks, out):  # type: ignore[no-untyped-def]
    """`stitch` of a block from whole task vectors; returns how many entries each mask selects, int64 (n,)."""
    overlap = np.zeros(out.size, np.float32)
    kept = np.zeros(vectors.shape[0], np.int64)
    out[:] = np.float32(0)
    for t in range(vectors.shape[0]):
        vector, mask = vectors[t], masks[t]
        count = 0
        for i in range(out.size):
            selected = mask[i] != 0
            out[i] += vector[i] if selected else np.float32(0)
            overlap[i] += np.float32(selected)
            count += selected
        kept[t] = count
    for i in range(out.size):
        out[i] /= max(overlap[i], np.float32(1))
    return kept
