"""Parameter scopes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.merging.scope import names_counted, names_in_scope
from tests.reference.pico import shapes, write_checkpoint


@pytest.fixture
def base(tmp_path: Path) -> Checkpoint:
    tensors = {name: torch.zeros(shape) for name, shape in shapes().items()}
    return Checkpoint(write_checkpoint(tmp_path, tensors | {"model.layers.0.position": torch.arange(3)}))


def test_what_each_scope_leaves_out(base: Checkpoint) -> None:
    everything = set(names_in_scope(base))
    assert everything == set(shapes())
    assert everything - set(names_in_scope(base, "no-embeddings")) == {"model.embed_tokens.weight", "lm_head.weight"}
    assert everything - set(names_in_scope(base, "backbone")) == {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"}
    assert names_in_scope(base, "released") == names_in_scope(base, "no-embeddings")
    assert names_in_scope(base, r"regex:mlp\.up") == ["model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"]


def test_the_released_code_counts_a_head_that_it_does_not_write(base: Checkpoint) -> None:
    assert set(names_counted(base, "released")) - set(names_in_scope(base, "released")) == {"lm_head.weight"}
    for scope in ("all", "no-embeddings", "backbone", "regex:mlp"):
        assert names_counted(base, scope) == names_in_scope(base, scope)


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        ("embeddings", "expected all, no-embeddings, backbone, released or regex:PATTERN"),
        ("regex:(", "not a valid regular expression"),
        ("regex:nothing", "holds none of the"),
    ],
)
def test_a_wrong_scope_is_refused(base: Checkpoint, scope: str, message: str) -> None:
    with pytest.raises(MergebenchError, match=message):
        names_in_scope(base, scope)
