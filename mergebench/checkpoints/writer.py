"""Write a checkpoint tensor by tensor, in the form of the base that it derives from."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal, Self

from mergebench.checkpoints.reader import INDEX, SINGLE, Checkpoint
from mergebench.checkpoints.tensorfile import ITEM_BYTES, TensorInfo
from mergebench.errors import MergebenchError

if TYPE_CHECKING:
    import torch

Dtype = Literal["base", "float32", "bfloat16", "float16"]
MAX_SHARD_BYTES = 5_000_000_000

_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_COPIED = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template.*",
    "additional_chat_templates/*",
)


@dataclass(frozen=True)
class _Slot:
    """Where one tensor goes: its file, its place in the file, and its form."""

    file: str
    offset: int
    info: TensorInfo


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
        self._slots, self._headers, self._sizes = _layout(base, dtype, max_shard_bytes)
        self._files: dict[str, BinaryIO] = {}
        self._missing = set(self._slots)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, header in self._headers.items():
            file = (self.folder / f"{name}.partial").open("wb")
            file.write(header)
            file.truncate(self._sizes[name])
            self._files[name] = file
        return self

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Store `tensor` under `name`, rounded once to the output dtype."""
        import torch

        if name not in self._slots:
            raise MergebenchError(f"Cannot write tensor {name!r}: the base {self.base.folder} has none of that name.")
        slot = self._slots[name]
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
        self._copy_other_files()
        for name in self._files:
            (self.folder / f"{name}.partial").replace(self.folder / name)
        if len(self._files) > 1:
            self._write_index()

    def _copy_other_files(self) -> None:
        for path in sorted({path for pattern in _COPIED for path in self.base.folder.glob(pattern) if path.is_file()}):
            target = self.folder / path.relative_to(self.base.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        if self.dtype != "base":
            stated = {"dtype": self.dtype} | ({"torch_dtype": self.dtype} if "torch_dtype" in self.base.config else {})
            text = json.dumps({**self.base.config, **stated}, indent=2, ensure_ascii=False)
            (self.folder / "config.json").write_text(text + "\n", encoding="utf-8")

    def _write_index(self) -> None:
        total = sum(slot.info.end - slot.info.start for slot in self._slots.values())
        places = {name: slot.file for name, slot in sorted(self._slots.items())}
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=2)
        partial = self.folder / f"{INDEX}.partial"
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(self.folder / INDEX)


def _layout(base: Checkpoint, dtype: Dtype, max_shard_bytes: int) -> tuple[dict[str, _Slot], dict[str, bytes], dict[str, int]]:
    """The place of every tensor, and every file's header and size."""
    forms = {name: _NAMES.get(dtype, info.dtype) if info.floating else info.dtype for name, info in base.tensors.items()}
    groups = list(_shards(base, forms, max_shard_bytes))
    slots: dict[str, _Slot] = {}
    headers: dict[str, bytes] = {}
    sizes: dict[str, int] = {}
    for number, group in enumerate(groups, start=1):
        file = SINGLE if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        infos: dict[str, TensorInfo] = {}
        position = 0
        # Wide items first keeps every tensor aligned to its item size.
        for name in sorted(group, key=lambda name: (-ITEM_BYTES[forms[name]], name)):
            end = position + base.tensors[name].size * ITEM_BYTES[forms[name]]
            infos[name] = TensorInfo(forms[name], base.tensors[name].shape, position, end)
            position = end
        headers[file] = _header(infos)
        sizes[file] = len(headers[file]) + position
        slots.update({name: _Slot(file, len(headers[file]) + info.start, info) for name, info in infos.items()})
    return slots, headers, sizes


def _shards(base: Checkpoint, forms: dict[str, str], max_shard_bytes: int) -> Iterator[list[str]]:
    group: list[str] = []
    filled = 0
    for name, info in base.tensors.items():
        size = info.size * ITEM_BYTES[forms[name]]
        if group and filled + size > max_shard_bytes:
            yield group
            group, filled = [], 0
        group.append(name)
        filled += size
    yield group


def _header(infos: dict[str, TensorInfo]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for name, info in infos.items():
        entries[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [info.start, info.end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _torch_dtype(name: str) -> torch.dtype:
    import torch

    names = {
        "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2, "U16": torch.uint16, "I16": torch.int16, "F16": torch.float16,
        "BF16": torch.bfloat16, "U32": torch.uint32, "I32": torch.int32, "F32": torch.float32,
        "U64": torch.uint64, "I64": torch.int64, "F64": torch.float64, "C64": torch.complex64,
    }  # fmt: skip
    return names[name]
