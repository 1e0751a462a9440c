"""Ways in which a checkpoint can be broken: cut, flipped, lying, looping. Each changes one model's folder in place."""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

INDEX = "model.safetensors.index.json"

Mutation = Callable[[Path, random.Random], None]


def _weights(folder: Path, dice: random.Random) -> Path:
    return dice.choice(sorted(folder.glob("*.safetensors")))


def _edit_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def _entry(header: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    entry: dict[str, Any] = header[dice.choice(sorted(name for name in header if name != "__metadata__"))]
    return entry


def _edit_json(path: Path, dice: random.Random, changes: list[Callable[[dict[str, Any]], Any]]) -> None:
    content = json.loads(path.read_text())
    dice.choice(changes)(content)
    path.write_text(json.dumps(content))


def _flip(path: Path, place: int, dice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << dice.randrange(8)
    path.write_bytes(bytes(content))


def _header_length(path: Path) -> int:
    return int(struct.unpack("<Q", path.read_bytes()[:8])[0])


def truncate(folder: Path, dice: random.Random) -> None:
    path = _weights(folder, dice)
    content = path.read_bytes()
    path.write_bytes(content[: dice.randrange(len(content))])


def lengthen(folder: Path, dice: random.Random) -> None:
    path = _weights(folder, dice)
    path.write_bytes(path.read_bytes() + dice.randbytes(dice.randrange(1, 64)))


def empty(folder: Path, dice: random.Random) -> None:
    dice.choice(sorted(path for path in folder.iterdir() if path.is_file())).write_bytes(b"")


def noise(folder: Path, dice: random.Random) -> None:
    dice.choice(sorted(path for path in folder.iterdir() if path.is_file())).write_bytes(dice.randbytes(dice.randrange(1, 4096)))


def flip_header(folder: Path, dice: random.Random) -> None:
    path = _weights(folder, dice)
    _flip(path, dice.randrange(8, 8 + _header_length(path)), dice)


def flip_length(folder: Path, dice: random.Random) -> None:
    _flip(_weights(folder, dice), dice.randrange(8), dice)


def huge_length(folder: Path, dice: random.Random) -> None:
    path = _weights(folder, dice)
    length = dice.choice([2**63, 2**64 - 1, 2**40, 100_000_001, path.stat().st_size])
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])


def flip_weights(folder: Path, dice: random.Random) -> None:
    path = _weights(folder, dice)
    _flip(path, dice.randrange(8 + _header_length(path), path.stat().st_size), dice)


def not_finite(folder: Path, dice: random.Random) -> None:
    path = _weights(folder, dice)
    content, start = bytearray(path.read_bytes()), 8 + _header_length(path)
    place = start + 4 * dice.randrange((len(content) - start) // 4)
    content[place : place + 4] = struct.pack("<f", dice.choice([float("nan"), float("inf"), float("-inf")]))
    path.write_bytes(bytes(content))


def move_offsets(folder: Path, dice: random.Random) -> None:
    def change(header: dict[str, Any]) -> None:
        entry = _entry(header, dice)
        shift = dice.choice([-4, 4, 2**40, -(2**40)])
        entry["data_offsets"] = [dice.choice([0, shift]) + place for place in entry["data_offsets"]]

    _edit_header(_weights(folder, dice), change)


def share_offsets(folder: Path, dice: random.Random) -> None:
    def change(header: dict[str, Any]) -> None:
        _entry(header, dice)["data_offsets"] = _entry(header, dice)["data_offsets"]

    _edit_header(_weights(folder, dice), change)


def lie_about_shape(folder: Path, dice: random.Random) -> None:
    def change(header: dict[str, Any]) -> None:
        entry = _entry(header, dice)
        shape = entry["shape"]
        entry["shape"] = dice.choice(
            [shape[::-1], [*shape, 1], [*shape, 2], [-size for size in shape], [0], "wide", [None], [2**62, 4], [1.5]]
        )

    _edit_header(_weights(folder, dice), change)


def lie_about_dtype(folder: Path, dice: random.Random) -> None:
    def change(header: dict[str, Any]) -> None:
        _entry(header, dice)["dtype"] = dice.choice(["F32", "BF16", "I32", "U32", "F64", "F4", "", None, 7, ["F32"]])

    _edit_header(_weights(folder, dice), change)


def break_header(folder: Path, dice: random.Random) -> None:
    def change(header: dict[str, Any]) -> None:
        name = dice.choice(sorted(header))
        header[name] = dice.choice([None, 3, "x", [], {}, {"dtype": "F32"}, [[[]]]])

    _edit_header(_weights(folder, dice), change)


def rename_tensor(folder: Path, dice: random.Random) -> None:
    def change(header: dict[str, Any]) -> None:
        name = dice.choice(sorted(name for name in header if name != "__metadata__"))
        header[dice.choice([f"{name}.more", "", name.upper(), "lm_head.weight"])] = header.pop(name)

    _edit_header(_weights(folder, dice), change)


def nest_header(folder: Path, dice: random.Random) -> None:
    depth = dice.choice([10, 5_000, 200_000])
    text = b"[" * depth + b"]" * depth
    _weights(folder, dice).write_bytes(struct.pack("<Q", len(text)) + text)


def lose_file(folder: Path, dice: random.Random) -> None:
    dice.choice(sorted(path for path in folder.iterdir() if path.is_file())).unlink()


def folder_instead(folder: Path, dice: random.Random) -> None:
    path = dice.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    path.unlink()
    path.mkdir()


def loop(folder: Path, dice: random.Random) -> None:
    path = dice.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    path.unlink()
    path.symlink_to(dice.choice([path.name, "elsewhere", ".", "/dev/null"]))


def cut_json(folder: Path, dice: random.Random) -> None:
    path = dice.choice(sorted(folder.glob("*.json")))
    content = path.read_bytes()
    path.write_bytes(content[: dice.randrange(len(content))] + dice.choice([b"", b"\xff\xfe", b"\0"]))


def lie_in_index(folder: Path, dice: random.Random) -> None:
    path = folder / INDEX
    if not path.exists():  # an index that is ignored beside a complete file, or one that is all there is
        path.write_text(json.dumps({"weight_map": {"model.norm.weight": "model.safetensors"}}))
        if dice.random() < 0.5:
            (folder / "model.safetensors").rename(folder / "weights.safetensors")
        return

    def places(content: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = content["weight_map"]
        return found

    _edit_json(
        path,
        dice,
        [
            lambda content: places(content).update({"model.norm.weight": "../elsewhere.safetensors"}),
            lambda content: places(content).update({"model.norm.weight": "/etc/passwd"}),
            lambda content: places(content).update({"model.norm.weight": 3}),
            lambda content: places(content).update({"model.norm.weight": ""}),
            lambda content: places(content).update({"model.unheard.weight": sorted(places(content).values())[0]}),
            lambda content: places(content).update({name: sorted(places(content).values())[0] for name in places(content)}),
            lambda content: places(content).pop(dice.choice(sorted(places(content)))),
            lambda content: content.update({"weight_map": dice.choice([None, [], {}, "model.safetensors"])}),
        ],
    )


def swap_shards(folder: Path, dice: random.Random) -> None:
    first, *others = sorted(folder.glob("*.safetensors"))
    if others:
        shutil.copyfile(first, others[0])
    else:
        shutil.copyfile(first, folder / "model-00002-of-00002.safetensors")


def lie_in_configuration(folder: Path, dice: random.Random) -> None:
    values = [None, 3, "maybe", [], {}, [[]], {"quant_method": "gptq"}, True]
    keys = ["tie_word_embeddings", "architectures", "quantization_config", "vocab_size", "eos_token_id", "rope_scaling", "torch_dtype"]
    _edit_json(folder / "config.json", dice, [lambda content: content.update({dice.choice(keys): dice.choice(values)})])


def lie_in_tokenizer(folder: Path, dice: random.Random) -> None:
    _edit_json(
        folder / "tokenizer.json",
        dice,
        [
            lambda content: content.update({"model": dice.choice([None, 3, [], {}])}),
            lambda content: content["model"].update({"vocab": dice.choice([None, 3, "x", [1, 2], [["a", 0.0], ["b"]], [["a", 0.0]]])}),
            lambda content: content["model"]["vocab"].update({"token3": dice.choice([4, 3.5, None, "3", [], 10**30])}),
            lambda content: content.update(
                {"added_tokens": dice.choice([3, [3], [{}], [{"content": [], "id": 1}], [{"content": "token3", "id": 7}]])}
            ),
        ],
    )


MUTATIONS: list[Mutation] = [
    truncate, lengthen, empty, noise, flip_header, flip_length, huge_length, flip_weights, not_finite, move_offsets, share_offsets,
    lie_about_shape, lie_about_dtype, break_header, rename_tensor, nest_header, lose_file, folder_instead, loop, cut_json, lie_in_index,
    swap_shards, lie_in_configuration, lie_in_tokenizer, truncate,
]  # fmt: skip
