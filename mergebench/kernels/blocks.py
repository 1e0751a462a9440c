"""Load, measure and store one block.

Arrays are one-dimensional and contiguous; `vectors` is float32 (n, m). Loops run over the domains outside and over the entries
inside, so that each inner loop is vectorised and each sum has the order of the domains.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mergebench.kernels.bits import MAGNITUDE, as_bits, from_bfloat16, from_float16, to_bfloat16, to_float16
from mergebench.kernels.compiled import compiled

# Sums of squares are added up in this many lanes, so that they are vectorised and still have one order.
LANES = 256


@compiled
def load_bfloat16(stored, out):  # type: ignore[no-untyped-def]
    """`stored` as float32; returns the largest magnitude's bits, at least `INFINITY` if a value is not finite."""
    top = np.uint32(0)
    for i in range(out.size):
        value = from_bfloat16(stored[i])
        top = max(top, as_bits(value) & MAGNITUDE)
        out[i] = value
    return top


@compiled
def load_float16(stored, out):  # type: ignore[no-untyped-def]
    """As `load_bfloat16`, from float16 bits."""
    top = np.uint32(0)
    for i in range(out.size):
        value = from_float16(stored[i])
        top = max(top, as_bits(value) & MAGNITUDE)
        out[i] = value
    return top


@compiled
def load_float(stored, out):  # type: ignore[no-untyped-def]
    """As `load_bfloat16`, from float32 or float64 numbers."""
    top = np.uint32(0)
    for i in range(out.size):
        value = np.float32(stored[i])
        top = max(top, as_bits(value) & MAGNITUDE)
        out[i] = value
    return top


@compiled
def subtract_bfloat16(stored, base, out):  # type: ignore[no-untyped-def]
    """The task vector `stored` - `base`; returns the largest magnitude's bits."""
    top = np.uint32(0)
    for i in range(out.size):
        value = from_bfloat16(stored[i]) - base[i]
        top = max(top, as_bits(value) & MAGNITUDE)
        out[i] = value
    return top


@compiled
def subtract_float16(stored, base, out):  # type: ignore[no-untyped-def]
    """As `subtract_bfloat16`, from float16 bits."""
    top = np.uint32(0)
    for i in range(out.size):
        value = from_float16(stored[i]) - base[i]
        top = max(top, as_bits(value) & MAGNITUDE)
        out[i] = value
    return top


@compiled
def subtract_float(stored, base, out):  # type: ignore[no-untyped-def]
    """As `subtract_bfloat16`, from float32 or float64 numbers."""
    top = np.uint32(0)
    for i in range(out.size):
        value = np.float32(stored[i]) - base[i]
        top = max(top, as_bits(value) & MAGNITUDE)
        out[i] = value
    return top


@compiled
def store_bfloat16(base, direction, scale, out):  # type: ignore[no-untyped-def]
    """base + scale * direction as bfloat16 bits: a rounded product, a rounded sum, one rounding to the format.

    Returns the bits of the largest magnitude before the last rounding.
    """
    factor = np.float32(scale)
    top = np.uint32(0)
    for i in range(out.size):
        value = base[i] + factor * direction[i]
        top = max(top, as_bits(value) & MAGNITUDE)
        out[i] = to_bfloat16(value)
    return top


@compiled
def store_float16(base, direction, scale, out):  # type: ignore[no-untyped-def]
    """As `store_bfloat16`, in float16."""
    factor = np.float32(scale)
    top = np.uint32(0)
    for i in range(out.size):
        value = base[i] + factor * direction[i]
        top = max(top, as_bits(value) & MAGNITUDE)
        out[i] = to_float16(value)
    return top


@compiled
def store_float(base, direction, scale, out):  # type: ignore[no-untyped-def]
    """As `store_bfloat16`, in float32 (or float64, of float32 precision)."""
    factor = np.float32(scale)
    top = np.uint32(0)
    for i in range(out.size):
        value = base[i] + factor * direction[i]
        top = max(top, as_bits(value) & MAGNITUDE)
        out[i] = value
    return top


@compiled
def scale_in_bfloat16(direction, scale, out):  # type: ignore[no-untyped-def]
    """scale * direction, float32 (m,), with the product rounded to bfloat16, as models computed in that format have it."""
    factor = np.float32(scale)
    for i in range(out.size):
        out[i] = from_bfloat16(to_bfloat16(factor * direction[i]))


@compiled
def add_up(vectors, out):  # type: ignore[no-untyped-def]
    """The sum of the task vectors, in the order of the domains: float32 (m,)."""
    out[:] = vectors[0]
    for t in range(1, vectors.shape[0]):
        row = vectors[t]
        for i in range(out.size):
            out[i] += row[i]


@compiled
def sign_conflicts(vectors, signs):  # type: ignore[no-untyped-def]
    """At how many entries two task vectors have opposite signs. `signs` is uint8 scratch (m,)."""
    signs[:] = 0
    for t in range(vectors.shape[0]):
        row = vectors[t]
        for i in range(signs.size):
            signs[i] |= np.uint8(row[i] > 0) | (np.uint8(row[i] < 0) << np.uint8(1))
    count = 0
    for i in range(signs.size):
        count += signs[i] == 3
    return count


@compiled
def moved(direction):  # type: ignore[no-untyped-def]
    """How many entries are not zero, and the sum of squares (float64, in a fixed order)."""
    lanes = np.zeros(LANES)
    count = 0
    full = direction.size // LANES * LANES
    for start in range(0, full, LANES):
        part = direction[start : start + LANES]
        for i in range(LANES):
            lanes[i] += np.float64(part[i]) * np.float64(part[i])
    for i in range(full, direction.size):
        lanes[i - full] += np.float64(direction[i]) * np.float64(direction[i])
    for i in range(direction.size):
        count += direction[i] != 0
    total = 0.0
    for i in range(LANES):
        total += lanes[i]
    return count, total


LOAD: dict[str, Callable[..., int]] = {"BF16": load_bfloat16, "F16": load_float16, "F32": load_float, "F64": load_float}
SUBTRACT: dict[str, Callable[..., int]] = {
    "BF16": subtract_bfloat16,
    "F16": subtract_float16,
    "F32": subtract_float,
    "F64": subtract_float,
}
STORE: dict[str, Callable[..., int]] = {"BF16": store_bfloat16, "F16": store_float16, "F32": store_float, "F64": store_float}
