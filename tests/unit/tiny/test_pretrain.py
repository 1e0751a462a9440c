"""Pretraining: reproducible at micro size, and the shipped twins are what their manifest says."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest

from mergebench.errors import MergebenchError
from mergebench.tiny import cli, pretrain, tokenizer
from mergebench.tiny.shipped import WEIGHTS, shipped

BASES = list(pretrain.TWINS)


@pytest.fixture(autouse=True)
def _one_thread():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("base", ["tiny-llama-weak", "tiny-gemma-2-strong"])
def test_the_same_arguments_give_the_same_hash(tmp_path: Path, base: str) -> None:
    first, second = (pretrain.pretrain(base, tmp_path / name, steps=3) for name in "ab")
    other_seed = pretrain.pretrain(base, tmp_path / "c", steps=3, seed=1)
    assert first == second != other_seed
    assert hashlib.sha256((tmp_path / "a" / "model.safetensors").read_bytes()).hexdigest() == first


def test_pretraining_learns(tmp_path: Path) -> None:
    losses: list[float] = []
    pretrain.pretrain("tiny-llama-weak", tmp_path, steps=40, progress=lambda *p: losses.append(float(p[2].split()[-1])))
    assert losses[0] == pytest.approx(math.log(tokenizer.VOCABULARY), rel=0.05)
    assert sum(losses[-5:]) / 5 < 0.85 * losses[0]


def test_the_command_writes_a_folder_per_twin_and_the_manifest(tmp_path: Path, capsys) -> None:
    assert cli.main(["pretrain", "tiny-gemma-2-weak", str(tmp_path), "--steps", "1"]) == 0
    out, err = capsys.readouterr()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert out == f"tiny-gemma-2-weak: {manifest['tiny-gemma-2-weak']['model.safetensors']}\n"
    assert "1/1 steps, 0 s left" in err


def test_an_unknown_base_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(MergebenchError, match="no tiny base 'tiny-llama'; the names are: tiny-llama-weak"):
        pretrain.pretrain("tiny-llama", tmp_path, steps=1)


@pytest.mark.parametrize("base", BASES)
def test_shipped_weights_match_the_manifest(base: str) -> None:
    manifest = json.loads((WEIGHTS / "manifest.json").read_text())
    twin = pretrain.TWINS[base]
    data = (shipped(base) / "model.safetensors").read_bytes()
    assert manifest[base] == {"steps": twin.steps, "seed": 0, "model.safetensors": hashlib.sha256(data).hexdigest()}


@pytest.mark.parametrize("base", BASES)
def test_shipped_twins_load_with_their_architecture_and_tokenizer(base: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(shipped(base))
    tok = AutoTokenizer.from_pretrained(shipped(base))
    gemma = "gemma" in base
    assert type(model).__name__ == ("Gemma2ForCausalLM" if gemma else "LlamaForCausalLM")
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == gemma
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    assert model.generation_config.eos_token_id == tok.eos_token_id
    assert tok.backend_tokenizer.to_str() == tokenizer.build().backend_tokenizer.to_str()
