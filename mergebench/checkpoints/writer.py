"""Write a checkpoint tensor by tensor, in the form of the base that it derives from."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from mergebench.checkpoints.layout import MAX_SHARD_BYTES, Dtype, Layout, copy_other_files, write_index
from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError

if TYPE_CHECKING:
    import torch


class CheckpointWriter:
    """Writes the tensors of `base`, with new values, into `folder`; a context manager.

    Names and shapes are the base's, so every header is known beforehand and each tensor goes straight to its final
    place, in any order, with one tensor in memory. Shards carry a temporary name until the block ends well with
    every tensor written; the index comes last. Configuration, tokenizer and chat template are the base's, byte for
    byte (with another dtype, `config.json` says so).

    Args:
        base: The checkpoint to take names, shapes, dtypes and the other files from.
        folder: The folder to fill; created if absent.
        dtype: "base" keeps each tensor's dtype; another name is used for every floating tensor.
        max_shard_bytes: Bytes of tensors per file; one larger tensor gets a file of its own.

    Raises:
        MergebenchError: From `write`, a tensor is unknown, of another shape or not finite once rounded; on leaving
            the block, a tensor was never written.
    """

    def __init__(self, base: Checkpoint, folder: Path, *, dtype: Dtype = "base", max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        self.base = base
        self.folder = Path(folder)
        self.dtype = dtype
        self._layout = Layout.of(base, dtype=dtype, max_shard_bytes=max_shard_bytes)
        self._files: dict[str, BinaryIO] = {}
        self._missing = set(self._layout.slots)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, header in self._layout.headers.items():
            file = (self.folder / f"{name}.partial").open("wb")
            file.write(header)
            file.truncate(self._layout.sizes[name])
            self._files[name] = file
        return self

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Store `tensor` under `name`, rounded once to the output dtype."""
        import torch

        if name not in self._layout.slots:
            raise MergebenchError(f"Cannot write tensor {name!r}: the base {self.base.folder} has none of that name.")
        slot = self._layout.slots[name]
        if tuple(tensor.shape) != slot.info.shape:
            raise MergebenchError(f"Cannot write tensor {name!r} of shape {list(tensor.shape)}: the base has {list(slot.info.shape)}.")
        rounded = tensor.to(_torch_dtype(slot.info.dtype)).contiguous()
        if slot.info.floating and not torch.isfinite(rounded).all():
            raise MergebenchError(f"Tensor {name!r} is not finite in {slot.info.dtype}: use a smaller scale or a wider dtype.")
        file = self._files[slot.file]
        file.seek(slot.offset)
        file.write(rounded.reshape(-1).view(torch.uint8).numpy().data)
        self._missing.discard(name)

    def copy(self, name: str) -> None:
        """Store the base's own tensor `name`."""
        self.write(name, self.base.tensor(name))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for file in self._files.values():
            file.close()
        if kind is not None:
            return
        if self._missing:
            raise MergebenchError(
                f"{self.folder} is incomplete: {len(self._missing)} tensors were not written, {min(self._missing)!r} first."
            )
        copy_other_files(self.base, self.folder, self.dtype)
        for name in self._files:
            (self.folder / f"{name}.partial").replace(self.folder / name)
        write_index(self._layout, self.folder)


def _torch_dtype(name: str) -> torch.dtype:
    import torch

    names = {
        "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2, "U16": torch.uint16, "I16": torch.int16, "F16": torch.float16,
        "BF16": torch.bfloat16, "U32": torch.uint32, "I32": torch.int32, "F32": torch.float32,
        "U64": torch.uint64, "I64": torch.int64, "F64": torch.float64, "C64": torch.complex64,
    }  # fmt: skip
    return names[name]
