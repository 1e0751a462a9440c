"""The bits of numbers: reinterpretation, and the 16-bit formats, which numba does not compute with.

Everything is branch-free arithmetic on 32-bit words, so that loops over it are vectorised.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from mergebench.kernels.compiled import compiled

MAGNITUDE = np.uint32(0x7FFFFFFF)
SIGN = np.uint32(0x80000000)
INFINITY = np.uint32(0x7F800000)

# The smallest magnitudes, as float32 bits, that round to infinity in each format.
OVERFLOW = {"F32": INFINITY, "F64": INFINITY, "BF16": np.uint32(0x7F7F8000), "F16": np.uint32(0x477FF000)}


@intrinsic
def as_float(typing: Any, word: Any) -> Any:
    """The float32 with the bits of a uint32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generate


@intrinsic
def as_bits(typing: Any, number: Any) -> Any:
    """The bits of a float32, uint32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), generate


@compiled
def from_bfloat16(stored):  # type: ignore[no-untyped-def]
    """The float32 value of bfloat16 bits."""
    return as_float(np.uint32(stored) << np.uint32(16))


@compiled
def to_bfloat16(number):  # type: ignore[no-untyped-def]
    """bfloat16 bits of a finite float32, rounded to nearest, ties to even."""
    word = as_bits(number)
    return np.uint16((word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@compiled
def from_float16(stored):  # type: ignore[no-untyped-def]
    """The float32 value of float16 bits: the exponent is rebiased by an exact product, which also serves subnormal numbers."""
    word = np.uint32(stored)
    magnitude = as_bits(as_float((word & np.uint32(0x7FFF)) << np.uint32(13)) * np.float32(2.0**112))
    special = INFINITY if (word & np.uint32(0x7C00)) == np.uint32(0x7C00) else np.uint32(0)
    return as_float(magnitude | special | ((word & np.uint32(0x8000)) << np.uint32(16)))


@compiled
def to_float16(number):  # type: ignore[no-untyped-def]
    """float16 bits of a float32 below 65520 in magnitude, rounded to nearest, ties to even."""
    word = as_bits(number)
    magnitude = word & MAGNITUDE
    normal = (magnitude + np.uint32(0xC8000FFF) + ((magnitude >> np.uint32(13)) & np.uint32(1))) >> np.uint32(13)
    # Adding one half shifts a subnormal result to the end of the mantissa, and rounds it on the way.
    subnormal = as_bits(as_float(magnitude) + np.float32(0.5)) - np.uint32(0x3F000000)
    rounded = subnormal if magnitude < np.uint32(0x38800000) else normal
    return np.uint16(rounded | ((word & SIGN) >> np.uint32(16)))
