"""Checkpoints as folders: single files, shards, tied heads, vocabularies, and what can be wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mergebench.checkpoints.reader import INDEX, Checkpoint
from mergebench.errors import MergebenchError
from tests.reference.pico import write_checkpoint

TENSORS = {"model.embed_tokens.weight": torch.arange(12.0).reshape(4, 3), "a.weight": torch.ones(2, dtype=torch.bfloat16)}


@pytest.mark.parametrize("shards", [1, 2])
def test_tensors_and_headers(tmp_path: Path, shards: int) -> None:
    found = Checkpoint(write_checkpoint(tmp_path, TENSORS, shards=shards))
    assert found.names == ["a.weight", "model.embed_tokens.weight"]
    assert found.tensors["a.weight"].dtype == "BF16"
    assert found.dtypes == {"BF16", "F32"}
    assert found.embedding_rows == 4
    for name, expected in TENSORS.items():
        assert torch.equal(found.tensor(name), expected)
    with pytest.raises(MergebenchError, match="no tensor 'b'"):
        found.tensor("b")


@pytest.mark.parametrize(
    ("flag", "stored", "tied"),
    [({"tie_word_embeddings": True}, False, True), ({"tie_word_embeddings": False}, True, False), ({}, False, True), ({}, True, False)],
)
def test_tied_heads(tmp_path: Path, flag: dict, stored: bool, tied: bool) -> None:
    head = {"lm_head.weight": torch.zeros(4, 3)} if stored else {}
    write_checkpoint(tmp_path, {**TENSORS, **head})
    (tmp_path / "config.json").write_text(json.dumps(flag))
    assert Checkpoint(tmp_path).tied is tied


def test_a_tied_head_that_is_stored_counts_once(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {**TENSORS, "lm_head.weight": torch.zeros(4, 3)}, config={"tie_word_embeddings": True})
    found = Checkpoint(tmp_path)
    assert found.tied
    assert "lm_head.weight" not in found.names


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"vocab": {"a": 0, "b": 1}}, {"a": 0, "b": 1, "<x>": 7}),
        ({"vocab": [["a", -1.0], ["b", -2.0]]}, {"a": 0, "b": 1, "<x>": 7}),
    ],
)
def test_vocabulary(tmp_path: Path, model: dict, expected: dict) -> None:
    write_checkpoint(tmp_path, TENSORS)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": [{"content": "<x>", "id": 7}]}))
    assert Checkpoint(tmp_path).vocabulary == expected


def test_no_tokenizer_is_no_vocabulary(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, TENSORS)
    (tmp_path / "tokenizer.json").unlink()
    assert Checkpoint(tmp_path).vocabulary is None


def remove_shard(folder: Path) -> None:
    (folder / "model-00002-of-00002.safetensors").unlink()


def truncate_shard(folder: Path) -> None:
    path = folder / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def swap_shard(folder: Path) -> None:
    save_file({"other": torch.ones(1)}, folder / "model-00002-of-00002.safetensors")


def repeat_tensor(folder: Path) -> None:
    save_file(TENSORS, folder / "model-00002-of-00002.safetensors")


def index(content: object):
    def write(folder: Path) -> None:
        (folder / INDEX).write_text(content if isinstance(content, str) else json.dumps(content))

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_shard, r"lacks model-00002-of-00002\.safetensors, which model\.safetensors\.index\.json lists"),
        (truncate_shard, "truncated"),
        (swap_shard, "places tensor .* which does not hold it"),
        (repeat_tensor, "in two shards"),
        (index("{cut"), "not valid JSON"),
        (index([]), "holds list where a map was expected"),
        (index({}), "no weight_map"),
        (index({"weight_map": {"a": 3}}), "no weight_map"),
        (index({"weight_map": {"a": "../../etc/passwd"}}), "must lie in the same folder"),
        (lambda folder: (folder / INDEX).unlink(), "neither"),
        (lambda folder: (folder / "config.json").unlink(), "Cannot read"),
        (lambda folder: (folder / "config.json").write_text("[1"), "not valid JSON"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage, message: str) -> None:
    write_checkpoint(tmp_path, TENSORS, shards=2)
    damage(tmp_path)
    with pytest.raises(MergebenchError, match=message):
        Checkpoint(tmp_path)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(MergebenchError, match="no checkpoint at"):
        Checkpoint(tmp_path / "none")


def test_a_broken_vocabulary(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, TENSORS)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(MergebenchError, match="no vocabulary"):
        _ = Checkpoint(tmp_path).vocabulary
