"""The Pareto frontier: what no other choice matches in everything and beats in something."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pandas as pd


def dominates(points: np.ndarray) -> np.ndarray:
    """Whether one point dominates another: is nowhere worse and somewhere better.

    Args:
        points: float (n, axes, ...), higher is better on every axis; anything behind the axes (draws) is judged one by one.

    Returns:
        bool (n, n, ...): [i, j] is whether i dominates j. A NaN neither dominates nor is dominated.
    """
    one, other = points[:, None], points[None, :]
    return np.asarray((one >= other).all(axis=2) & (one > other).any(axis=2))


def frontier(values: pd.DataFrame) -> list[Hashable]:
    """The rows of a frame, higher is better in every column, that no other dominates; rows with a NaN are in nobody's way and are
    left out."""
    known = values.dropna()
    beaten = dominates(known.to_numpy(dtype=float)).any(axis=0)
    return list(known.index[~beaten])


def dominators(values: pd.DataFrame) -> dict[Hashable, list[Hashable]]:
    """Of every row without NaN, the rows of the frontier that dominate it, in the order of the rows; none for one on the frontier."""
    known = values.dropna()
    pairs = dominates(known.to_numpy(dtype=float))
    best = ~pairs.any(axis=0)
    return {name: list(known.index[pairs[:, j] & best]) for j, name in enumerate(known.index)}
