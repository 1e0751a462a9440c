"""Random numbers by counting: entry i of a tensor has its own number, whatever is computed before, beside or after it.

The generator is SplitMix64 (Steele, Lea and Flood, 2014): number i of a key is a fixed mixing of key + (i + 1) * gamma. Any part of
a tensor can be drawn alone, so results depend neither on chunks nor on shards, threads or the order of tensors.
"""

from __future__ import annotations

import functools
import hashlib
from statistics import NormalDist

import numpy as np

GAMMA = np.uint64(0x9E3779B97F4A7C15)
CHUNK = 1 << 20


def key(seed: int, domain: str, name: str) -> int:
    """The 64-bit key of one specialist's tensor."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{domain}\0{name}".encode()).digest()[:8], "little")


def draw(key: int, start: int, count: int) -> np.ndarray:
    """Numbers `start` to `start + count - 1` of a key: uint32 (count,), uniform."""
    with np.errstate(over="ignore"):
        state = np.arange(start + 1, start + count + 1, dtype=np.uint64)
        state *= GAMMA
        state += np.uint64(key)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            state ^= state >> np.uint64(shift)
            state *= np.uint64(factor)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(32)).astype(np.uint32)


def keep(key: int, count: int, probability: float) -> np.ndarray:
    """Which of `count` entries are kept, each with `probability` (exact to 2^-32): bool (count,)."""
    limit = np.uint64(round(probability * 2**32))
    kept = np.empty(count, bool)
    for start in range(0, count, CHUNK):
        part = min(CHUNK, count - start)
        kept[start : start + part] = draw(key, start, part) < limit
    return kept


@functools.cache
def quantiles() -> np.ndarray:
    """The standard normal distribution in 65,536 equally likely steps: the middle quantile of each, float32 (65536,), ascending.

    A table, because logarithms and cosines differ in their last bits between processors, and a merge must not.
    """
    normal = NormalDist()
    half = np.array([normal.inv_cdf((i + 0.5) / 2**16) for i in range(2**15)], np.float32)
    return np.concatenate([half, -half[::-1]])


def normal(key: int, start: int, count: int) -> np.ndarray:
    """Normally distributed numbers, from the upper halves of `draw`: float32 (count,), mean 0, variance 1, none of them 0."""
    found: np.ndarray = quantiles()[draw(key, start, count) >> np.uint32(16)]
    return found
