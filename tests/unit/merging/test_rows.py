"""Embedding rows that not all models have: what is merged, and whose tokenizer the merged model gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mergebench.checkpoints.reader import Checkpoint
from mergebench.merging.engine import merge
from mergebench.merging.models import Models
from tests.reference.pico import shapes, write_checkpoint

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def tensors(rows: int, seed: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    found = {name: torch.randn(shape, generator=random) for name, shape in shapes().items()}
    return found | {name: torch.randn(rows, 6, generator=random) for name in (EMBEDDING, HEAD)}


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """A base of 11 rows, of which 9 are tokens; specialists of 14, 12 and 10 rows."""
    found = {"base": tensors(11, 0), "coding": tensors(14, 1), "math": tensors(12, 2), "safety": tensors(10, 3)}
    for name, weights in found.items():
        tokens = {f"token{place}": place for place in range(9)}
        if name == "coding":
            tokens |= {"<a>": 11, "<b>": 13}
        write_checkpoint(tmp_path / name, weights, config={"vocab_size": len(weights[EMBEDDING])}, vocabulary=tokens)
    return found


def merged(folder: Path, policy: str) -> Checkpoint:
    domains = ("coding", "math") if policy == "base" else ("coding", "math", "safety")
    models = Models.open(folder / "base", {domain: folder / domain for domain in domains}, vocabulary=policy)  # type: ignore[arg-type]
    merge(models, "task_arithmetic", {"scale": 1.0}, folder=folder / "merged", max_shard_bytes=500)
    return Checkpoint(folder / "merged")


@pytest.mark.parametrize(("policy", "rows"), [("base", 11), ("truncate", 10), ("union", 14)])
def test_rows_that_all_have_are_merged(parts, tmp_path: Path, policy: str, rows: int) -> None:
    found = merged(tmp_path, policy)
    assert found.tensors[EMBEDDING].shape == found.tensors[HEAD].shape == (rows, 6)
    assert found.config["vocab_size"] == rows
    assert found.embedding_rows == rows
    for name in (EMBEDDING, HEAD):
        base = parts["base"][name][:10]
        specialists = [domain for domain in parts if domain != "base" and (policy != "base" or domain != "safety")]
        expected = base + sum(parts[domain][name][:10] - base for domain in specialists)
        torch.testing.assert_close(found.tensor(name)[:10], expected)


def test_a_union_takes_added_rows_from_those_that_have_them(parts, tmp_path: Path) -> None:
    found = merged(tmp_path, "union")
    for name in (EMBEDDING, HEAD):
        base, coding, math = (parts[model][name] for model in ("base", "coding", "math"))
        # Row 10 is not in safety, which has not moved it; row 11 is new in two specialists, 12 and 13 in one.
        torch.testing.assert_close(found.tensor(name)[10], base[10] + (coding[10] - base[10]) + (math[10] - base[10]))
        torch.testing.assert_close(found.tensor(name)[11], (coding[11] + math[11]) / 2)
        torch.testing.assert_close(found.tensor(name)[12:], coding[12:])
    assert found.vocabulary == Checkpoint(tmp_path / "coding").vocabulary


def test_other_policies_keep_the_base_s_tokenizer(parts, tmp_path: Path) -> None:
    found = merged(tmp_path, "truncate")
    assert (found.folder / "tokenizer.json").read_bytes() == (tmp_path / "base" / "tokenizer.json").read_bytes()
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    assert {**config, "vocab_size": 10} == found.config
    assert all(tensor.shape[0] == 10 for path in found.folder.glob("*.safetensors") for n, tensor in load_file(path).items() if n == HEAD)
