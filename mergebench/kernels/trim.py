"""Keep the entries of a block that reach a threshold."""

from __future__ import annotations

import numpy as np

from mergebench.kernels.bits import MAGNITUDE, as_bits
from mergebench.kernels.compiled import compiled


@compiled
def trim(vectors, limits, spares, out):  # type: ignore[no-untyped-def]
    """The task vectors with all entries below their limits set to zero: float32 (n, m) -> (n, m).

    Args:
        vectors: Task vectors.
        limits, spares: As from `Block.limits`.
        out: Where to write.

    Returns:
        How many entries of each are kept, int64 (n,).
    """
    kept = np.zeros(vectors.shape[0], np.int64)
    for t in range(vectors.shape[0]):
        vector, trimmed, limit = vectors[t], out[t], limits[t]
        count = 0
        for i in range(vector.size):
            keep = (as_bits(vector[i]) & MAGNITUDE) >= limit
            trimmed[i] = vector[i] if keep else np.float32(0)
            count += keep
        spare = spares[t]
        for i in range(vector.size if spare > 0 else 0):
            if spare > 0 and (as_bits(vector[i]) & MAGNITUDE) == limit - np.uint32(1):
                trimmed[i] = vector[i]
                count += 1
                spare -= 1
        kept[t] = count
    return kept
