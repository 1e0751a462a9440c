"""How the task vectors of a block relate to each other: products, common signs, common large entries."""

from __future__ import annotations

import numpy as np

from mergebench.kernels.bits import MAGNITUDE, as_bits
from mergebench.kernels.blocks import LANES
from mergebench.kernels.compiled import compiled


@compiled
def products(vectors, out):  # type: ignore[no-untyped-def]
    """Add the inner products of all pairs to out: float32 (n, m) -> float64 (n, n); summed in lanes, in one order."""
    size = vectors.shape[1]
    full = size // LANES * LANES
    for a in range(vectors.shape[0]):
        for b in range(a, vectors.shape[0]):
            first, second, lanes = vectors[a], vectors[b], np.zeros(LANES)
            for start in range(0, full, LANES):
                for i in range(LANES):
                    lanes[i] += np.float64(first[start + i]) * np.float64(second[start + i])
            for i in range(full, size):
                lanes[i - full] += np.float64(first[i]) * np.float64(second[i])
            total = 0.0
            for i in range(LANES):
                total += lanes[i]
            out[a, b] += total
            out[b, a] = out[a, b]


@compiled
def count_relations(vectors, limits, zeros, conflicts, overlaps):  # type: ignore[no-untyped-def]
    """Add up counts over a block.

    Args:
        vectors: float32 (n, m).
        limits: Bits of the smallest magnitude that counts as large, uint32 (n,); at least 1.
        zeros: Entries that are zero, int64 (n,).
        conflicts: Entries at which two vectors have opposite signs, int64 (n, n).
        overlaps: Entries that are large in both, int64 (n, n); the diagonal counts each vector's own.
    """
    for a in range(vectors.shape[0]):
        first, limit = vectors[a], limits[a]
        count = 0
        for i in range(first.size):
            count += first[i] == 0
        zeros[a] += count
        for b in range(a, vectors.shape[0]):
            second, other = vectors[b], limits[b]
            opposite, common = 0, 0
            for i in range(first.size):
                opposite += ((first[i] > 0) & (second[i] < 0)) | ((first[i] < 0) & (second[i] > 0))
                common += ((as_bits(first[i]) & MAGNITUDE) >= limit) & ((as_bits(second[i]) & MAGNITUDE) >= other)
            conflicts[a, b] += opposite
            overlaps[a, b] += common
            conflicts[b, a], overlaps[b, a] = conflicts[a, b], overlaps[a, b]
