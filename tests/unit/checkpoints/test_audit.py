"""What the audit of headers finds, and what it lets pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mergebench.checkpoints.audit import audit, require_mergeable
from mergebench.checkpoints.reader import Checkpoint
from mergebench.checkpoints.vocabulary import merged_rows
from mergebench.errors import MergebenchError
from tests.reference.pico import shapes, write_checkpoint

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
TOKENS = {f"token{place}": place for place in range(11)}


def make(folder: Path, changes: dict | None = None, **options) -> Checkpoint:
    """A checkpoint of the pico layout; a change of None removes the tensor."""
    tensors = {name: torch.zeros(shape) for name, shape in shapes().items()} | (changes or {})
    return Checkpoint(write_checkpoint(folder, {name: value for name, value in tensors.items() if value is not None}, **options))


@pytest.fixture
def base(tmp_path: Path) -> Checkpoint:
    return make(tmp_path / "base")


def test_a_fine_tune_passes(base: Checkpoint, tmp_path: Path) -> None:
    assert audit(base, make(tmp_path / "math", shards=2), "math") == []


CASES = {
    "missing tensor": ({"model.norm.weight": None}, {}, r"math lacks 1 tensors of the base \(model\.norm\.weight first\) and has 0 others"),
    "extra tensor": ({"adapter.weight": torch.zeros(1)}, {}, r"has 1 others \(adapter\.weight first\)"),
    "other shape": ({"model.norm.weight": torch.zeros(7)}, {}, r"model\.norm\.weight of shape \[7\], the base \[6\]"),
    "other width": ({EMBEDDING: torch.zeros(11, 7)}, {}, r"of shape \[11, 7\], the base \[11, 6\]"),
    "tied head": ({HEAD: None}, {}, "head of math is tied to the embedding, that of the base is a tensor of its own"),
    "fewer rows": ({EMBEDDING: torch.zeros(9, 6)}, {}, '9 rows .* fewer than the base\'s 11; set vocabulary to "truncate"'),
    "bitsandbytes": ({}, {"config": {"quantization_config": {"quant_method": "bitsandbytes"}}}, "math is quantised with bitsandbytes"),
    "quantised": ({"model.norm.weight": torch.zeros(6, dtype=torch.int8)}, {}, "as I8, the base as F32; quantised"),
    "moved token": ({}, {"vocabulary": {**TOKENS, "token3": 4, "token4": 3}}, r"2 tokens an id .* 'token3' for one \(4 against 3\)"),
    "replaced token": (
        {},
        {"vocabulary": {**{t: p for t, p in TOKENS.items() if p != 5}, "new": 5}},
        r"'new' for one \(5 against none\)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_merged_is_refused(base: Checkpoint, tmp_path: Path, case: str) -> None:
    changes, options, message = CASES[case]
    with pytest.raises(MergebenchError, match=message):
        require_mergeable(base, {"math": make(tmp_path / "math", changes, **options)})


def test_extra_rows_are_refused_unless_the_base_decides(base: Checkpoint, tmp_path: Path) -> None:
    """MergeBench/Llama-3.2-3B_math has 128,320 embedding rows where its base has 128,256."""
    wide = {EMBEDDING: torch.zeros(14, 6), HEAD: torch.zeros(14, 6)}
    math = make(tmp_path / "math", wide, vocabulary={**TOKENS, "<pad>": 11})
    with pytest.raises(MergebenchError, match=r'14 rows in lm_head\.weight, the base 11; set vocabulary to "base".*1 more problem'):
        require_mergeable(base, {"math": math})
    findings = audit(base, math, "math", vocabulary="base")
    assert [finding.fatal for finding in findings] == [False, False, False]
    assert [finding.check for finding in findings] == ["vocabulary", "vocabulary", "tokenizer"]
    assert "merges" not in findings[0].message
    assert "the others dropped" in findings[0].message


@pytest.mark.parametrize("policy", ["truncate", "union"])
def test_rows_that_not_all_have_are_noted(base: Checkpoint, tmp_path: Path, policy: str) -> None:
    wide = make(tmp_path / "math", {EMBEDDING: torch.zeros(14, 6), HEAD: torch.zeros(14, 6)}, vocabulary={**TOKENS, "<pad>": 11})
    found = require_mergeable(base, {"math": wide}, vocabulary=policy)["math"]
    assert not any(finding.fatal for finding in found)
    rows = merged_rows(base, {"math": wide}, policy)
    if policy == "truncate":
        assert (rows.shapes, rows.tokenizer) == ({}, base)
    else:
        assert rows.shapes == {EMBEDDING: (14, 6), HEAD: (14, 6)}
        assert rows.tokenizer is wide


def test_truncation_keeps_the_rows_that_all_have(tmp_path: Path) -> None:
    tokens = {token: place for token, place in TOKENS.items() if place < 9}
    config = {"vocab_size": 11}
    padded = make(tmp_path / "base", vocabulary=tokens, config=config)
    short = make(tmp_path / "math", {EMBEDDING: torch.zeros(10, 6), HEAD: torch.zeros(9, 6)}, vocabulary=tokens)
    require_mergeable(padded, {"math": short}, vocabulary="truncate")
    rows = merged_rows(padded, {"math": short}, "truncate")
    assert rows.shapes == {EMBEDDING: (9, 6), HEAD: (9, 6)}
    assert rows.config == {"vocab_size": 9}
    with pytest.raises(MergebenchError, match="fewer than the base's 11; the missing rows cannot be merged"):
        require_mergeable(padded, {"math": short}, vocabulary="base")


def test_truncation_never_cuts_a_token(base: Checkpoint, tmp_path: Path) -> None:
    short = make(tmp_path / "math", {EMBEDDING: torch.zeros(9, 6), HEAD: torch.zeros(9, 6)})
    with pytest.raises(MergebenchError, match=r"9 rows .* tokenizer with ids up to 10"):
        require_mergeable(base, {"math": short}, vocabulary="truncate")


def test_a_union_needs_one_tokenizer_that_knows_all(base: Checkpoint, tmp_path: Path) -> None:
    wide = {EMBEDDING: torch.zeros(12, 6), HEAD: torch.zeros(12, 6)}
    models = {name: make(tmp_path / name, wide, vocabulary={**TOKENS, f"<{name}>": 11}) for name in ("math", "safety")}
    with pytest.raises(MergebenchError, match="safety and math both add tokens, and math does not know '<safety>'"):
        require_mergeable(base, models, vocabulary="union")
    (models["safety"].folder / "tokenizer.json").unlink()
    with pytest.raises(MergebenchError, match="safety has no tokenizer"):
        merged_rows(base, {**models, "safety": Checkpoint(models["safety"].folder)}, "union")


def test_an_adapter_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "meta-llama/Llama-3.2-3B", "peft_type": "LORA"}')
    with pytest.raises(MergebenchError, match=r"is an adapter \(LORA\) of meta-llama/Llama-3\.2-3B, .* fold it into"):
        Checkpoint(tmp_path)


def test_differences_that_merging_survives_are_noted(base: Checkpoint, tmp_path: Path) -> None:
    tensors = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in shapes().items()}
    folder = write_checkpoint(tmp_path / "math", tensors, config={"eos_token_id": [1, 2], "rope_theta": 5.0})
    (folder / "tokenizer.json").unlink()
    findings = audit(base, Checkpoint(folder), "math")
    assert {finding.check for finding in findings} == {"dtypes", "tokenizer", "config"}
    assert not any(finding.fatal for finding in findings)
    assert json.loads(json.dumps([finding.record() for finding in findings]))[0]["check"] == "dtypes"
