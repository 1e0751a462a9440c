"""Write one safetensors file piece by piece: its header first, then each tensor into its place."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from mergebench.checkpoints.tensorfile import ITEM_BYTES, TensorInfo
from mergebench.errors import MergebenchError

if TYPE_CHECKING:
    import torch

COPIED = 1 << 24  # entries that leave a GPU at once


class TensorWriter:
    """Writes a safetensors file whose tensors come in pieces, those of one tensor in order; a context manager.

    The file has the same bytes in whatever order tensors are written. It is not moved, flushed or removed: that is for the caller.

    Args:
        path: The file.
        infos: Tensor name -> its form; places are chosen here.
        metadata: The header's text entries, at most one: readers keep the order of several, writers of the format do not.

    Raises:
        MergebenchError: From `append`, a tensor is unknown or gets too much; on leaving the block, one got too little.
    """

    def __init__(self, path: Path, infos: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> None:
        self.path = Path(path)
        position = 0
        placed: dict[str, TensorInfo] = {}
        # Wide items first keeps every tensor aligned to its item size.
        for name in sorted(infos, key=lambda name: (-ITEM_BYTES[infos[name].dtype], name)):
            info = infos[name]
            placed[name] = TensorInfo(info.dtype, info.shape, position, position + info.size * ITEM_BYTES[info.dtype])
            position = placed[name].end
        entries: dict[str, object] = {"__metadata__": dict(metadata)}
        entries |= {n: {"dtype": i.dtype, "shape": list(i.shape), "data_offsets": [i.start, i.end]} for n, i in placed.items()}
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._header = struct.pack("<Q", len(text)) + text
        self._places = placed
        self._written = dict.fromkeys(placed, 0)  # bytes

    def __enter__(self) -> Self:
        self._file = self.path.open("wb")
        self._file.write(self._header)
        return self

    def append(self, name: str, values: np.ndarray) -> None:
        """Write the next values of a tensor, as the bytes that `values` holds."""
        if name not in self._places:
            raise MergebenchError(f"Cannot write tensor {name!r} into {self.path}: it was not announced.")
        info, content = self._places[name], np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        place = info.start + self._written[name]
        if place + content.size > info.end:
            raise MergebenchError(f"Tensor {name!r} of {self.path} got more than its {info.end - info.start} bytes.")
        self._file.seek(len(self._header) + place)
        self._file.write(content.data)
        self._written[name] += content.size

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write a whole tensor, of any device, a piece at a time."""
        import torch

        flat = tensor.detach().contiguous().reshape(-1)
        for start in range(0, flat.numel(), COPIED):
            self.append(name, flat[start : start + COPIED].cpu().view(torch.uint8).numpy())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if kind is not None:
            return
        for name, info in self._places.items():
            if self._written[name] != info.end - info.start:
                raise MergebenchError(f"Tensor {name!r} of {self.path} got {self._written[name]} of {info.end - info.start} bytes.")


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors into a file; beside them, memory holds a piece of one."""
    with TensorWriter(path, {name: info_of(tensor) for name, tensor in tensors.items()}, metadata) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)


def info_of(tensor: torch.Tensor) -> TensorInfo:
    """The form in which a tensor is stored."""
    import torch

    names = {
        torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64",
        torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64",
    }  # fmt: skip
    return TensorInfo(names[tensor.dtype], tuple(tensor.shape), 0, 0)
