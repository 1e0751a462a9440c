"""Electing signs, and adding up what agrees with them: what TIES does with trimmed task vectors, and DARE with TIES."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from mergebench.kernels.bits import MAGNITUDE, as_bits
from mergebench.kernels.compiled import compiled
from mergebench.kernels.elect import TILE
from mergebench.merging.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Aggregate = Literal["mean", "sum", "max"]
ZeroSign = Literal["majority", "positive", "drop"]

# How kernels are told.
AGGREGATES = {"sum": 0, "mean": 1, "max": 2}


def elect(trimmed: Sequence[Tensor]) -> Tensor:
    """The sign of a sum: -1, 0 or 1, float32 (*shape).

    The sum is in float64, where n float32 numbers add up exactly enough that opposite ones cancel to zero.
    """
    total = trimmed[0].double()
    for vector in trimmed[1:]:
        total = total + vector.double()
    return total.sign().float()


def sign_of_zero(zero_sign: ZeroSign, majority: float) -> float:
    """The sign where a sum is zero. `majority` is the sum of all elected signs of the model."""
    return {"majority": float(np.sign(majority)), "positive": 1.0, "drop": 0.0}[zero_sign]


def merge_agreeing(trimmed: Sequence[Tensor], weights: Sequence[float], sign: Tensor, aggregate: Aggregate) -> Tensor:
    """The sum (or mean, or largest magnitude) of the entries whose sign is the elected one.

    Args:
        trimmed: n trimmed task vectors, each multiplied by its weight (*shape).
        weights: The n weights: the mean divides by the sum of those that agree.
        sign: The elected signs, 1 or -1; where 0, nothing agrees.
        aggregate: "sum", "mean" or "max".

    Returns:
        float32 (*shape), rounded to the dtype of `trimmed`.
    """
    total, divisor = torch.zeros_like(sign), torch.zeros_like(sign)
    for vector, weight in zip(trimmed, weights, strict=True):
        agrees = vector.float() * sign > 0
        agreeing = torch.where(agrees, vector.float(), 0.0)
        if aggregate == "max":
            total = torch.maximum(total, agreeing.abs())
        else:
            total = total + agreeing
            divisor = divisor + torch.where(agrees, weight, 0.0)
    if aggregate == "max":
        total = total * sign
    elif aggregate == "mean":
        total = total / torch.where(divisor == 0, 1.0, divisor)
    return total.to(trimmed[0].dtype).float()


@compiled
def balance(vectors, limits):  # type: ignore[no-untyped-def]
    """The sum of the elected signs of a block, as `elect_block` has it, without writing what is trimmed.

    Args:
        vectors: Task vectors, float32 (n, m).
        limits: As from `Block.limits`, without spare entries.
    """
    total = np.empty(TILE)
    found = 0
    for start in range(0, vectors.shape[1], TILE):
        width = min(TILE, vectors.shape[1] - start)
        total[:] = 0
        for t in range(vectors.shape[0]):
            vector, limit = vectors[t, start : start + TILE], limits[t]
            for i in range(width):
                keep = (as_bits(vector[i]) & MAGNITUDE) >= limit
                total[i] += np.float64(vector[i] if keep else np.float32(0))
        for i in range(width):
            found += np.int64(total[i] > 0) - np.int64(total[i] < 0)
    return found


@compiled
def merge_largest(vectors, limits, zero, mean, out):  # type: ignore[no-untyped-def]
    """`trim`, `elect_block` and `merge_block` in one, for weights of 1: what is trimmed is not written.

    Args:
        vectors: Task vectors, float32 (n, m).
        limits: As from `Block.limits`, without spare entries.
        zero: The sign where kept entries cancel.
        mean: Whether to divide by the number of entries that agree.
        out: float32 (m,).

    Returns:
        How many entries of each task vector are kept, int64 (n,), and at how many entries kept ones cancel to zero.
    """
    total, touched = np.empty(TILE), np.empty(TILE, np.uint8)
    signs, divisor = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    kept = np.zeros(vectors.shape[0], np.int64)
    none, default = np.float32(0), np.float32(zero)
    cancelled = 0
    for start in range(0, out.size, TILE):
        part = out[start : start + TILE]
        total[:], touched[:], divisor[:], part[:] = 0, 0, none, none
        for t in range(vectors.shape[0]):
            vector, limit = vectors[t, start : start + TILE], limits[t]
            count = 0
            for i in range(part.size):
                keep = (as_bits(vector[i]) & MAGNITUDE) >= limit
                total[i] += np.float64(vector[i] if keep else none)
                touched[i] |= np.uint8(keep)
                count += keep
            kept[t] += count
        for i in range(part.size):
            positive, negative = total[i] > 0, total[i] < 0
            cancelled += np.int64(touched[i]) & np.int64(not (positive or negative))
            signs[i] = np.float32(1) if positive else np.float32(-1) if negative else default
        for t in range(vectors.shape[0]):
            vector, limit = vectors[t, start : start + TILE], limits[t]
            for i in range(part.size):
                agrees = ((as_bits(vector[i]) & MAGNITUDE) >= limit) & (vector[i] * signs[i] > none)
                part[i] += vector[i] if agrees else none
                divisor[i] += np.float32(agrees)
        if mean:
            for i in range(part.size):
                part[i] /= divisor[i] if divisor[i] != none else np.float32(1)
    return kept, cancelled


@compiled
def merge_block(trimmed, weights, signs, aggregate, out):  # type: ignore[no-untyped-def]
    """`merge_agreeing` of a block: float32 (n, m), (n,), (m,), one of AGGREGATES -> out, float32 (m,)."""
    zero = np.float32(0)
    out[:] = zero
    if aggregate == 2:
        for t in range(trimmed.shape[0]):
            vector = trimmed[t]
            for i in range(out.size):
                out[i] = max(out[i], abs(vector[i]) if vector[i] * signs[i] > zero else zero)
        for i in range(out.size):
            out[i] *= signs[i]
        return
    divisor = np.empty(TILE, np.float32)
    for start in range(0, out.size, TILE):
        part, sign = out[start : start + TILE], signs[start : start + TILE]
        divisor[:] = zero
        for t in range(trimmed.shape[0]):
            vector, weight = trimmed[t, start : start + TILE], weights[t]
            for i in range(part.size):
                agrees = vector[i] * sign[i] > zero
                part[i] += vector[i] if agrees else zero
                divisor[i] += weight if agrees else zero
        if aggregate == 1:
            for i in range(part.size):
                part[i] /= divisor[i] if divisor[i] != zero else np.float32(1)
