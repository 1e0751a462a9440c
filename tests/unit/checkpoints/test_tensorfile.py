"""Damaged and hostile safetensors files: each ends in a sentence."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mergebench.checkpoints.tensorfile import TensorFile, read_header
from mergebench.errors import MergebenchError

GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "U8", "shape": [], "data_offsets": [8, 9]}}


def write(path: Path, header: object, data: bytes = bytes(9), *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def change(name: str, **entry: object) -> dict:
    return {**GOOD, name: {**GOOD[name], **entry}}


HOSTILE = {
    "not JSON": (b"{oops", {}),
    "not text": (b"\xff\xfe", {}),
    "a list": ([1, 2], {}),
    "deep nesting": (b"[" * 100_000, {}),
    "metadata is no map": ({**GOOD, "__metadata__": 3}, {}),
    "unknown dtype": (change("a", dtype="F31"), {}),
    "dtype is no word": (change("a", dtype=["F32"]), {}),
    "negative shape": (change("a", shape=[-2]), {}),
    "shape is no list": (change("a", shape=2), {}),
    "fractional shape": (change("a", shape=[2.0]), {}),
    "boolean shape": (change("a", shape=[True]), {}),
    "huge shape": (change("a", shape=[2**62, 2**62]), {}),
    "offsets too long": (change("a", data_offsets=[0, 12]), {}),
    "offsets reversed": (change("a", data_offsets=[8, 0]), {}),
    "three offsets": (change("a", data_offsets=[0, 4, 8]), {}),
    "entry is a number": ({**GOOD, "a": 1}, {}),
    "no dtype": ({**GOOD, "a": {"shape": [2], "data_offsets": [0, 8]}}, {}),
    "overlap": (change("b", data_offsets=[7, 8]), {}),
    "overlap to the end": (change("b", shape=[5], data_offsets=[4, 9]), {}),
    "hole": (change("b", data_offsets=[9, 10]), {"data": bytes(10)}),
    "truncated data": (GOOD, {"data": bytes(5)}),
    "trailing data": (GOOD, {"data": bytes(30)}),
    "header longer than the file": (GOOD, {"length": 10**6}),
    "absurd header length": (GOOD, {"length": 2**63}),
    "empty header": (GOOD, {"length": 0}),
}


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    tensors, metadata, _ = read_header(write(tmp_path / "x.safetensors", {**GOOD, "__metadata__": {"format": "pt"}}))
    assert {name: (info.dtype, info.shape, info.size, info.floating) for name, info in tensors.items()} == {
        "a": ("F32", (2,), 2, True),
        "b": ("U8", (), 1, False),
    }
    assert metadata == {"format": "pt"}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_contradiction_is_refused(tmp_path: Path, case: str) -> None:
    header, options = HOSTILE[case]
    path = write(tmp_path / "x.safetensors", header, **options)
    with pytest.raises(MergebenchError, match=r"x\.safetensors is not a sound safetensors file: .*make or fetch it again"):
        read_header(path)


def test_a_truncated_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(100)}, path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(MergebenchError, match=r"truncated \(360 bytes of tensors, 400 declared\)"):
        TensorFile(path)


@pytest.mark.parametrize("size", [0, 3, 8, 9])
def test_a_stump_is_refused(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "x.safetensors", GOOD)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(MergebenchError, match="do not hold the header"):
        read_header(path)


def test_a_missing_file_and_a_missing_tensor(tmp_path: Path) -> None:
    with pytest.raises(MergebenchError, match=r"Cannot read .*none\.safetensors"):
        read_header(tmp_path / "none.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(MergebenchError, match="no tensor 'b'"):
        TensorFile(tmp_path / "x.safetensors").tensor("b")


def test_mutated_files_never_crash(tmp_path: Path) -> None:
    """200 files with changed bytes or another length: each is refused in a sentence, or read with the shapes that it declares."""
    source = tmp_path / "source.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}, source)
    original = source.read_bytes()
    chance = random.Random(0)
    header_end = 8 + struct.unpack("<Q", original[:8])[0]
    path = tmp_path / "mutated.safetensors"
    refused = 0
    for _ in range(200):
        mutated = bytearray(original)
        for _ in range(chance.randint(1, 3)):
            mutated[chance.randrange(header_end)] = chance.randrange(256)
        path.write_bytes(bytes(mutated[: chance.choice([len(mutated)] * 3 + [chance.randrange(len(mutated))])]))
        try:
            file = TensorFile(path)
        except MergebenchError:
            refused += 1
            continue
        for name, info in file.tensors.items():
            assert tuple(file.tensor(name).shape) == info.shape
    assert refused > 100
