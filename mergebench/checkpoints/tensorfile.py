"""One safetensors file: its header, checked against its size, and its tensors, mapped into memory."""

from __future__ import annotations

import json
import math
import mmap
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mergebench.errors import MergebenchError

if TYPE_CHECKING:
    import torch

ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
FLOATING = frozenset({"F16", "BF16", "F32", "F64"})

# How numpy holds a format's values: the 16-bit floating formats as their bits, all that is not floating as bytes.
STORAGE = {"BF16": np.uint16, "F16": np.uint16, "F32": np.float32, "F64": np.float64}

# The format's own limit: a longer header is a corrupt length, not a large model.
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor. `dtype` is the format's name ("BF16"); `start`, `end` are byte offsets."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def floating(self) -> bool:
        """Whether the tensor holds weights that arithmetic applies to."""
        return self.dtype in FLOATING


class TensorFile:
    """A safetensors file whose header has been checked; tensors are mapped one at a time.

    Args:
        path: The file.

    Raises:
        MergebenchError: The file is absent, truncated, or its header contradicts itself or the file's size.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.tensors, self.metadata, self._data = read_header(self.path)

    @cached_property
    def _handle(self) -> Any:
        from safetensors import safe_open

        return safe_open(self.path, framework="pt")

    @cached_property
    def _bytes(self) -> np.ndarray:
        with self.path.open("rb") as file:
            try:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise MergebenchError(f"Cannot map {self.path} into memory: {error}.") from error
        return np.frombuffer(mapped, np.uint8)

    def values(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Entries `start` to `stop` of the flattened tensor `name`, as far as it goes: a read-only view of the mapped file.

        Returns:
            One-dimensional: float32 or float64 for these formats, uint16 bits for BF16 and F16. For formats that are not floating,
            the bytes of these entries, uint8.
        """
        info = self._info(name)
        size = ITEM_BYTES[info.dtype]
        first = self._data + info.start
        last = info.size if stop is None else min(stop, info.size)
        part = self._bytes[first + start * size : first + last * size]
        if info.dtype not in STORAGE:
            return part
        view = part.view(STORAGE[info.dtype])
        return view if view.flags.aligned else view.copy()

    def _info(self, name: str) -> TensorInfo:
        if name not in self.tensors:
            raise MergebenchError(f"{self.path} has no tensor {name!r}; it has {len(self.tensors)} others.")
        return self.tensors[name]

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor `name` in its stored dtype, a view of the mapped file: never write into it."""
        self._info(name)
        return self._handle.get_tensor(name)


def read_header(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str], int]:
    """The tensors (sorted by name) and the metadata that a safetensors file declares, and where its data starts.

    Only the header is read. It must describe the file completely: every byte of data belongs to exactly one tensor.

    Raises:
        MergebenchError: Anything else, in one sentence.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
            if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
                raise _unreadable(path, f"its {size} bytes do not hold the header that they announce")
            raw = file.read(length)
    except OSError as error:
        raise MergebenchError(f"Cannot read {path}: {error.strerror or error}.") from error
    try:
        header = json.loads(raw.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _unreadable(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _unreadable(path, "its header is not a map of tensors")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise _unreadable(path, "its metadata is not a map")
    tensors = {name: _info(path, name, header[name]) for name in sorted(header)}
    _check_layout(path, tensors, size - 8 - length)
    return tensors, metadata, 8 + length


def _info(path: Path, name: str, entry: Any) -> TensorInfo:
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise _unreadable(path, f"tensor {name!r} lacks a dtype, a shape or two offsets") from error
    counts = [*shape, start, end] if isinstance(shape, list) else [None]
    if any(type(count) is not int or count < 0 for count in counts):
        raise _unreadable(path, f"tensor {name!r} has shape {shape!r} and offsets {start!r}, {end!r}")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise _unreadable(path, f"tensor {name!r} has the unknown dtype {dtype!r}")
    info = TensorInfo(dtype, tuple(shape), start, end)
    if end - start != info.size * ITEM_BYTES[dtype]:
        raise _unreadable(path, f"tensor {name!r} is {dtype} {list(shape)} but spans {end - start} bytes")
    return info


def _check_layout(path: Path, tensors: dict[str, TensorInfo], available: int) -> None:
    position = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != position:
            raise _unreadable(path, f"tensor {name!r} starts at byte {info.start} where {position} was expected")
        position = info.end
    if position != available:
        state = "truncated" if available < position else "longer than its header says"
        raise _unreadable(path, f"it is {state} ({available} bytes of tensors, {position} declared)")


def _unreadable(path: Path, what: str) -> MergebenchError:
    return MergebenchError(f"{path} is not a sound safetensors file: {what}. Remove its folder and make or fetch it again.")
