"""How the task vectors of a block relate to each other: products, common signs, common large entries."""

from __future__ import annotations

import numpy as np

from mergebench.kernels.bits import MAGNITUDE, as_bits
from mergebench.kernels.blocks import LANES
from mergebench.kernels.compiled import compiled

# What `mark` says of an entry; the mirror image of a state has both pairs of bits exchanged.
POSITIVE, NEGATIVE, LARGE_POSITIVE, LARGE_NEGATIVE = 1, 2, 4, 8

# Counts of at most 255 rounds fit into bytes, so that many entries are counted by a few instructions.
_BYTES, _ROUNDS = 128, 255


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
def mark(vectors, limits, states):  # type: ignore[no-untyped-def]
    """The sign of every entry, and whether it is large: float32 (n, m) -> uint8 (n, m), of the bits above; 0 for a zero.

    Args:
        vectors: Task vectors.
        limits: Bits of the smallest magnitude that counts as large, uint32 (n,); at least 1.
        states: Where to write.
    """
    for t in range(vectors.shape[0]):
        vector, state, limit = vectors[t], states[t], limits[t]
        for i in range(vector.size):
            sign = np.uint8(vector[i] > 0) | (np.uint8(vector[i] < 0) << np.uint8(1))
            large = np.uint8((as_bits(vector[i]) & MAGNITUDE) >= limit)
            state[i] = sign * (np.uint8(1) + np.uint8(4) * large)


@compiled
def count_pairs(states, agreements, conflicts, large_agreements, large_conflicts):  # type: ignore[no-untyped-def]
    """Add up over a block, for all pairs, the entries that both move: with one sign, with opposite ones; and the same of large entries.

    Args:
        states: From `mark`, uint8 (n, m).
        agreements, conflicts, large_agreements, large_conflicts: int64 (n, n), added to; on the diagonal stand each vector's own entries.
    """
    size = states.shape[1]
    full = size // _BYTES * _BYTES
    mirrored, moved = np.empty(size, np.uint8), np.uint8(POSITIVE | NEGATIVE)
    # Arrays of their own, which the compiler knows not to overlap.
    same, other = np.empty(_BYTES, np.uint8), np.empty(_BYTES, np.uint8)
    same_large, other_large = np.empty(_BYTES, np.uint8), np.empty(_BYTES, np.uint8)
    for b in range(states.shape[0]):
        second = states[b]
        for i in range(size):
            up, down = second[i] & np.uint8(POSITIVE | LARGE_POSITIVE), second[i] & np.uint8(NEGATIVE | LARGE_NEGATIVE)
            mirrored[i] = np.uint8((up << np.uint8(1)) | (down >> np.uint8(1)))
        for a in range(b + 1):
            first, found = states[a], np.zeros(4, np.int64)
            for begin in range(0, full, _BYTES * _ROUNDS):
                same[:], other[:], same_large[:], other_large[:] = 0, 0, 0, 0
                for start in range(begin, min(begin + _BYTES * _ROUNDS, full), _BYTES):
                    x, y, z = first[start : start + _BYTES], second[start : start + _BYTES], mirrored[start : start + _BYTES]
                    for i in range(_BYTES):
                        same[i] += np.uint8((x[i] & y[i] & moved) != 0)
                        other[i] += np.uint8((x[i] & z[i] & moved) != 0)
                        same_large[i] += np.uint8((x[i] & y[i]) > moved)
                        other_large[i] += np.uint8((x[i] & z[i]) > moved)
                for i in range(_BYTES):
                    found[0] += same[i]
                    found[1] += other[i]
                    found[2] += same_large[i]
                    found[3] += other_large[i]
            for i in range(full, size):
                found[0] += (first[i] & second[i] & moved) != 0
                found[1] += (first[i] & mirrored[i] & moved) != 0
                found[2] += (first[i] & second[i]) > moved
                found[3] += (first[i] & mirrored[i]) > moved
            for kind, out in enumerate((agreements, conflicts, large_agreements, large_conflicts)):
                out[a, b] += found[kind]
                if a != b:
                    out[b, a] += found[kind]


@compiled
def count_contests(states, seen, once, twice):  # type: ignore[no-untyped-def]
    """Entries that two or more task vectors move, those of them at which both signs occur, and the same of large entries: int64 (4,).

    Args:
        states: From `mark`, uint8 (n, m).
        seen, once, twice: Scratch, uint8 (m,).
    """
    seen[:], once[:], twice[:] = 0, 0, 0
    one, positive = np.uint8(1), np.uint8(POSITIVE | LARGE_POSITIVE)
    for t in range(states.shape[0]):
        state = states[t]
        for i in range(seen.size):
            moved = np.uint8((state[i] | (state[i] >> one)) & positive)
            twice[i] |= np.uint8(once[i] & moved)
            once[i] |= moved
            seen[i] |= state[i]
    several, contested, several_large, contested_large = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
    for i in range(seen.size):
        both = np.uint8(seen[i] & (seen[i] >> one))
        several += np.int32((twice[i] & np.uint8(POSITIVE)) != 0)
        contested += np.int32((both & np.uint8(POSITIVE)) != 0)
        several_large += np.int32((twice[i] & np.uint8(LARGE_POSITIVE)) != 0)
        contested_large += np.int32((both & np.uint8(LARGE_POSITIVE)) != 0)
    return np.array([several, contested, several_large, contested_large], np.int64)


@compiled
def count_elected(trimmed, signs, agreeing):  # type: ignore[no-untyped-def]
    """Add up the entries of trimmed task vectors that have the elected sign: float32 (n, m), float32 (m,) -> int64 (n,)."""
    for t in range(trimmed.shape[0]):
        vector, count = trimmed[t], 0
        for i in range(vector.size):
            count += vector[i] * signs[i] > 0
        agreeing[t] += count
