"""The data card: what a tokenised training set holds, and what it costs to train on."""

import math
from typing import Any

import numpy as np

QUANTILES = {"min": 0.0, "p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99, "max": 1.0}


def lengths_card(lengths: np.ndarray) -> dict[str, Any]:
    """Mean and quantiles (a length that occurs, no interpolation) of token counts."""
    values = np.quantile(lengths, list(QUANTILES.values()), method="inverted_cdf")
    return {"mean": round(float(lengths.mean()), 1), **dict(zip(QUANTILES, map(int, values), strict=True))}


def packing_card(lengths: np.ndarray, capacity: int, batch_size: int) -> dict[str, Any]:
    """How full rows of `capacity` tokens get, and the optimizer steps of an epoch in both readings of the batch size."""
    packs = best_fit_packs(lengths, capacity)
    rows = len(lengths)
    return {
        "strategy": "best-fit decreasing over all rows",
        "packs": packs,
        "fill": round(float(lengths.sum()) / (packs * capacity), 4),
        "batch_size": batch_size,
        "steps_per_epoch": {"samples": math.ceil(rows / batch_size), "packs": math.ceil(packs / batch_size)},
        "packs_per_step_of_samples": round(packs / rows * batch_size, 2),
    }


def best_fit_packs(lengths: np.ndarray, capacity: int) -> int:
    """How many bins best-fit decreasing fills (lengths at most `capacity`).

    The bins' free room is a small number, so one integer with a bit for each room that occurs finds the tightest bin in
    constant time.
    """
    bins = [0] * (capacity + 1)  # how many bins have this much room left
    occurring = 0
    packs = 0
    for length in np.sort(lengths)[::-1].tolist():
        fitting = occurring >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            bins[room] -= 1
            if not bins[room]:
                occurring ^= 1 << room
        else:
            room = capacity
            packs += 1
        left = room - length
        bins[left] += 1
        occurring |= 1 << left
    return packs
