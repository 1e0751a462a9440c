"""Elect a sign for every entry of a block, as TIES does."""

from __future__ import annotations

import numpy as np

from mergebench.kernels.compiled import compiled

# Entries that are summed at a time, so that the sums stay in a core's first cache.
TILE = 2048


@compiled
def elect_block(trimmed, signs, zero):  # type: ignore[no-untyped-def]
    """The sign of the sum of trimmed task vectors: float32 (n, m) -> signs, float32 (m,); `zero` is written where the sum is zero.

    `merging.signs.elect` says the same of whole tensors. Sums are in float64, in the order of the rows.

    Returns:
        The sum of the elected signs, and at how many entries kept ones cancel to zero.
    """
    total, touched = np.empty(TILE), np.empty(TILE, np.uint8)
    balance, cancelled = 0, 0
    default = np.float32(zero)
    for start in range(0, signs.size, TILE):
        elected = signs[start : start + TILE]
        total[:], touched[:] = 0, 0
        for t in range(trimmed.shape[0]):
            vector = trimmed[t, start : start + TILE]
            for i in range(elected.size):
                total[i] += np.float64(vector[i])
                touched[i] |= np.uint8(vector[i] != 0)
        for i in range(elected.size):
            positive, negative = total[i] > 0, total[i] < 0
            balance += np.int64(positive) - np.int64(negative)
            cancelled += np.int64(touched[i]) & np.int64(not (positive or negative))
            elected[i] = np.float32(1) if positive else np.float32(-1) if negative else default
    return balance, cancelled
