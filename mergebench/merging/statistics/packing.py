"""Masks as bits: eight entries of the flattened tensor in a byte, the first in the lowest bit; the last byte is filled up with zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def packed_size(entries: int) -> int:
    """Bytes that so many entries take."""
    return -(-entries // 8)


def pack(values: np.ndarray) -> np.ndarray:
    """Entries of a mask, zero or not, as bits: uint8 (ceil(n / 8),). Pieces of a multiple of 8 entries can be packed one by one."""
    return np.packbits(values.reshape(-1), bitorder="little")


def unpack(packed: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Entries `start` to `stop` of what `pack` made, 0 or 1: uint8 (stop - start,)."""
    first = start // 8
    bits = np.unpackbits(packed[first : packed_size(stop)], bitorder="little")
    return bits[start - 8 * first : stop - 8 * first]


def unpacked(packed: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """A whole mask: bool, of `shape`."""
    import torch

    entries = int(np.prod(shape, dtype=np.int64))
    return torch.from_numpy(unpack(packed, 0, entries)).view(torch.bool).view(shape)
