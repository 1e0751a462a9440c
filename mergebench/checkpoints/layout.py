"""The layout of a checkpoint that is about to be written: every file's header and every tensor's place, known beforehand."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mergebench.checkpoints.reader import INDEX, SINGLE, Checkpoint
from mergebench.checkpoints.tensorfile import ITEM_BYTES, TensorInfo
from mergebench.checkpoints.vocabulary import Rows

Dtype = Literal["base", "float32", "bfloat16", "float16"]
MAX_SHARD_BYTES = 5_000_000_000

_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_CONFIGURATION = ("generation_config.json", "config.json")
_TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template.*",
    "additional_chat_templates/*",
)


@dataclass(frozen=True)
class Slot:
    """Where one tensor goes: its file, its place in the file in bytes, and its form."""

    file: str
    offset: int
    info: TensorInfo


@dataclass(frozen=True)
class Layout:
    """The files of a checkpoint.

    Attributes:
        slots: Tensor name -> slot, in the order of files and, within a file, of names.
        headers: File name -> its first bytes.
        sizes: File name -> its size in bytes.
    """

    slots: dict[str, Slot]
    headers: dict[str, bytes]
    sizes: dict[str, int]

    @classmethod
    def of(
        cls,
        base: Checkpoint,
        *,
        dtype: Dtype = "base",
        max_shard_bytes: int = MAX_SHARD_BYTES,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Layout:
        """The layout of a checkpoint in the form of `base`.

        Args:
            base: Where names, shapes and dtypes come from.
            dtype: "base" keeps each tensor's dtype; another name is used for every floating tensor.
            max_shard_bytes: Bytes of tensors per file; one larger tensor gets a file of its own.
            shapes: Shapes of tensors that differ from the base's.
        """
        infos = {}
        for name, info in base.tensors.items():
            form = _NAMES.get(dtype, info.dtype) if info.floating else info.dtype
            infos[name] = TensorInfo(form, (shapes or {}).get(name, info.shape), 0, 0)
        groups = list(_shards(infos, max_shard_bytes))
        slots: dict[str, Slot] = {}
        headers: dict[str, bytes] = {}
        sizes: dict[str, int] = {}
        for number, group in enumerate(groups, start=1):
            file = SINGLE if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
            placed: dict[str, TensorInfo] = {}
            position = 0
            # Wide items first keeps every tensor aligned to its item size.
            for name in sorted(group, key=lambda name: (-ITEM_BYTES[infos[name].dtype], name)):
                end = position + _bytes(infos[name])
                placed[name] = TensorInfo(infos[name].dtype, infos[name].shape, position, end)
                position = end
            headers[file] = _header(placed)
            sizes[file] = len(headers[file]) + position
            slots.update({name: Slot(file, len(headers[file]) + placed[name].start, placed[name]) for name in group})
        return cls(slots, headers, sizes)

    def names(self, file: str) -> list[str]:
        """The tensors of one file, sorted."""
        return [name for name, slot in self.slots.items() if slot.file == file]


def copy_other_files(base: Checkpoint, folder: Path, dtype: Dtype = "base", rows: Rows | None = None) -> None:
    """Copy configuration, tokenizer and chat template, byte for byte; `config.json` last, without which a folder is no model.

    Args:
        base: Where they come from.
        folder: Where they go.
        dtype: With another dtype than the base's, `config.json` says so.
        rows: With another vocabulary than the base's: whose tokenizer it is, and what `config.json` says of it.
    """
    tokenizer = rows.tokenizer if rows and rows.tokenizer else base
    for model, patterns in ((tokenizer, _TOKENIZER), (base, _CONFIGURATION)):
        for pattern in patterns:
            for path in sorted(path for path in model.folder.glob(pattern) if path.is_file()):
                target = folder / path.relative_to(model.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    stated: dict[str, object] = dict(rows.config) if rows else {}
    if dtype != "base":
        stated |= {"dtype": dtype} | ({"torch_dtype": dtype} if "torch_dtype" in base.config else {})
    if stated:
        text = json.dumps({**base.config, **stated}, indent=2, ensure_ascii=False)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def write_index(layout: Layout, folder: Path) -> None:
    """Write the index of a checkpoint in several files; a single file has none."""
    if len(layout.headers) == 1:
        return
    total = sum(slot.info.end - slot.info.start for slot in layout.slots.values())
    places = {name: slot.file for name, slot in sorted(layout.slots.items())}
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=2)
    partial = folder / f"{INDEX}.partial"
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(folder / INDEX)


def _bytes(info: TensorInfo) -> int:
    return info.size * ITEM_BYTES[info.dtype]


def _shards(infos: dict[str, TensorInfo], max_shard_bytes: int) -> Iterator[list[str]]:
    group: list[str] = []
    filled = 0
    for name, info in infos.items():
        if group and filled + _bytes(info) > max_shard_bytes:
            yield group
            group, filled = [], 0
        group.append(name)
        filled += _bytes(info)
    yield group


def _header(infos: dict[str, TensorInfo]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for name, info in infos.items():
        entries[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [info.start, info.end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
