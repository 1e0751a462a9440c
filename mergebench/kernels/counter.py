"""Random numbers by counting (`merging.counter`), compiled.

Entry i of a tensor has its own number, so that any part can be drawn alone.
"""

from __future__ import annotations

import numpy as np

from mergebench.kernels.compiled import compiled


@compiled
def draw(key, offset, out):  # type: ignore[no-untyped-def]
    """`counter.draw`: numbers `offset`, offset + 1, ... of a key, into out (uint32 (m,))."""
    start = key + (offset + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for i in range(out.size):
        state = start + np.uint64(i) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        out[i] = np.uint32((state ^ (state >> np.uint64(31))) >> np.uint64(32))


@compiled
def look_up(draws, quantiles, out):  # type: ignore[no-untyped-def]
    """The quantile that each number's upper half names: uint32 (m,), float32 (65536,) -> float32 (m,)."""
    for i in range(out.size):
        out[i] = quantiles[draws[i] >> np.uint32(16)]


@compiled
def sum_of_squares(values):  # type: ignore[no-untyped-def]
    """Of float32 (m,), added up in float64 and in order."""
    total = 0.0
    for i in range(values.size):
        total += np.float64(values[i]) * np.float64(values[i])
    return total
