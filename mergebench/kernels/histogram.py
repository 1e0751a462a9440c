"""Count magnitudes: coarse histograms, the entries of chosen coarse bins, and entries that equal a threshold."""

from __future__ import annotations

import numpy as np

from mergebench.kernels.bits import MAGNITUDE, as_bits
from mergebench.kernels.compiled import compiled

# The upper and the lower 16 bits of a float32 magnitude.
COARSE_BINS = 1 << 15
FINE_BINS = 1 << 16

# Neighbouring entries count in different lanes: two increments of one counter would wait for each other.
LANES = 2


@compiled
def count_magnitudes(vector, counts, wanted, caught):  # type: ignore[no-untyped-def]
    """Count the magnitudes of a block by their upper 16 bits, and collect those of some bins.

    Args:
        vector: float32 (m,).
        counts: uint32 (LANES, COARSE_BINS), added to.
        wanted: uint8 (COARSE_BINS,), 1 for the bins to collect.
        caught: uint32 (m + LANES,), filled with the magnitudes in these bins, in order.

    Returns:
        How many were collected.
    """
    found = 0
    full = vector.size // LANES * LANES
    for i in range(0, full, LANES):
        for lane in range(LANES):
            magnitude = as_bits(vector[i + lane]) & MAGNITUDE
            place = magnitude >> np.uint32(16)
            counts[lane, place] += np.uint32(1)
            caught[found] = magnitude
            found += wanted[place]
    for i in range(full, vector.size):
        magnitude = as_bits(vector[i]) & MAGNITUDE
        place = magnitude >> np.uint32(16)
        counts[0, place] += np.uint32(1)
        caught[found] = magnitude
        found += wanted[place]
    return found


@compiled
def collect(vector, wanted, caught):  # type: ignore[no-untyped-def]
    """As `count_magnitudes`, without counting."""
    found = 0
    for i in range(vector.size):
        magnitude = as_bits(vector[i]) & MAGNITUDE
        caught[found] = magnitude
        found += wanted[magnitude >> np.uint32(16)]
    return found


@compiled
def tally(caught, slots, fine):  # type: ignore[no-untyped-def]
    """Count collected magnitudes by their lower 16 bits.

    Args:
        caught: uint32 (m,).
        slots: int32 (COARSE_BINS,): the row of `fine` for each bin that was collected.
        fine: int64 (bins, FINE_BINS), added to.
    """
    for i in range(caught.size):
        fine[slots[caught[i] >> np.uint32(16)], caught[i] & np.uint32(0xFFFF)] += 1


@compiled
def count_equal(vector, bits):  # type: ignore[no-untyped-def]
    """How many entries of a block have this magnitude, given as bits."""
    count = 0
    for i in range(vector.size):
        count += (as_bits(vector[i]) & MAGNITUDE) == np.uint32(bits)
    return count
