"""Importing specialists: good ones become model folders like trained ones, bad ones are refused with one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergebench.artifacts import Job, execute, read_json
from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.training.imports import run as imports
from tests.reference.pico import shapes, write_checkpoint

CONFIG = {"architectures": ["LlamaForCausalLM"], "vocab_size": 11}


def values(seed: int, **options: Any) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).bfloat16() for name, shape in shapes(**options).items()}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "models/base/weights", values(0), config=CONFIG)


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    moved = {name: (tensor.float() * 1.125).bfloat16() for name, tensor in values(0).items()}
    folder = write_checkpoint(tmp_path / "tuned", moved, shards=2, config=CONFIG)
    (folder / "README.md").write_text("not needed")
    return folder


def do_import(base: Path, folder: Path, vocabulary: str = "refuse") -> tuple[Path, dict[str, Any]]:
    out = base.parents[1] / "specialist_math"
    spec = {"base": "b", "model": "specialist_math", "domains": ["math"], "source": "local", "path": str(folder), "vocabulary": vocabulary}
    outputs = {"manifest": out / "manifest.json", "weights": out / "weights"}
    execute(imports, Job("import", spec, {"base": [base]}, outputs, base.parents[2] / "state"))
    return out / "weights", read_json(out / "manifest.json")


def test_a_fine_tune_is_published_as_it_is(base: Path, tuned: Path) -> None:
    weights, manifest = do_import(base, tuned)
    assert {path.name: path.read_bytes() for path in weights.iterdir()} == {
        path.name: path.read_bytes() for path in tuned.iterdir() if path.name != "README.md"
    }
    assert manifest["imported"] == {"from": str(tuned), "adapter": None, "findings": []}
    assert manifest["relative_norm"] == pytest.approx(0.125, rel=0.01)
    assert (manifest["algorithm"], manifest["domains"], manifest["dtype"]) == ("import", ["math"], "BF16")


def test_another_dtype_is_kept_and_noted(base: Path, tuned: Path) -> None:
    half = {name: tensor.half() for name, tensor in {**load(tuned)}.items()}
    shutil.rmtree(tuned)
    write_checkpoint(tuned, half, config=CONFIG)
    _, manifest = do_import(base, tuned)
    assert manifest["dtype"] == "F16"
    assert "stored in F16, the base in BF16" in manifest["imported"]["findings"][0]["message"]


def test_a_specialist_without_a_tokenizer_gets_the_bases(base: Path, tuned: Path) -> None:
    (tuned / "tokenizer.json").unlink()
    weights, manifest = do_import(base, tuned)
    assert (weights / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert "it gets that of the base" in manifest["imported"]["findings"][-1]["message"]


@pytest.mark.parametrize("vocabulary", ["refuse", "base"])
def test_rows_beyond_the_bases_follow_the_policy(base: Path, tuned: Path, vocabulary: str) -> None:
    """The published Llama-3.2-3B_math has 128,320 rows, its base 128,256."""
    tensors = load(tuned)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat([tensors[name], torch.ones(4, 6).bfloat16()])
    shutil.rmtree(tuned)
    write_checkpoint(tuned, tensors, config={**CONFIG, "vocab_size": 15})
    if vocabulary == "refuse":
        with pytest.raises(MergebenchError, match=r'has 15 rows in lm_head\.weight, the base 11; set vocabulary to "base"'):
            do_import(base, tuned, vocabulary)
        return
    weights, manifest = do_import(base, tuned, vocabulary)
    assert Checkpoint(weights).embedding_rows == 15
    assert manifest["relative_norm"] == pytest.approx(0.125, rel=0.01)
    assert any("the base has are merged" in finding["message"] for finding in manifest["imported"]["findings"])


def load(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any], config: dict[str, Any] | None = None) -> None:
    tensors = load(folder)
    edit(tensors)
    shutil.rmtree(folder)
    write_checkpoint(folder, tensors, config={**CONFIG, **(config or {})})


def shard(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[-1]


def poison(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.1.mlp.up_proj.weight"][3, 2] = float("nan")


def quantise(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        if name.endswith("proj.weight"):
            tensors[name] = tensors[name].to(torch.int8)


def only_pickled(folder: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")


def other_tokenizer(folder: Path) -> None:
    tokens = {f"token{place}": (place + 1) % 11 for place in range(11)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": tokens}, "added_tokens": []}))


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another architecture": (
        lambda f: change(f, lambda t: None, {"architectures": ["MistralForCausalLM"]}),
        "is a MistralForCausalLM, its base a LlamaForCausalLM; use a fine-tune of this base",
    ),
    "a missing shard": (
        lambda f: shard(f).unlink(),
        r"lacks model-00002-of-00002\.safetensors, which model\.safetensors\.index\.json lists",
    ),
    "a truncated file": (lambda f: shard(f).write_bytes(shard(f).read_bytes()[:-6]), "is truncated"),
    "NaN": (lambda f: change(f, poison), r"model\.layers\.1\.mlp\.up_proj\.weight holds NaN or infinite values; its training diverged"),
    "fewer rows": (
        lambda f: change(f, lambda t: t.update({n: t[n][:9].clone() for n in ("model.embed_tokens.weight", "lm_head.weight")})),
        "has 9 rows in lm_head.weight, fewer than the base's 11",
    ),
    "another tokenizer": (other_tokenizer, "gives 11 tokens an id that differs from the base's"),
    "a missing tensor": (
        lambda f: change(f, lambda t: t.pop("model.norm.weight")),
        r"lacks 1 tensors of the base \(model\.norm\.weight first\)",
    ),
    "an extra tensor": (
        lambda f: change(f, lambda t: t.update({"model.extra": torch.ones(3)})),
        r"has 1 others \(model\.extra first\); expected the same set",
    ),
    "another shape": (
        lambda f: change(f, lambda t: t.update({"model.norm.weight": torch.ones(7).bfloat16()})),
        r"has model\.norm\.weight of shape \[7\], the base \[6\]",
    ),
    "pickled weights only": (only_pickled, r"has its weights only as pytorch_model\.bin, a format that can run code"),
    "no configuration": (lambda f: (f / "config.json").unlink(), r"Cannot read .*config\.json"),
    "quantised weights": (lambda f: change(f, quantise), "stores weights as I8, quantised; use the unquantised weights"),
    "quantised by its configuration": (
        lambda f: change(f, lambda t: None, {"quantization_config": {"quant_method": "gptq"}}),
        "is quantised with gptq",
    ),
    "a tied head": (lambda f: change(f, lambda t: t.pop("lm_head.weight")), "The output head of .* is tied to the embedding"),
    "the base itself": (lambda f: change(f, lambda t: t.update(values(0))), "is its base, value for value: there is nothing to merge"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_checkpoint_is_refused_and_leaves_nothing_behind(base: Path, tuned: Path, kind: str) -> None:
    damage, message = BAD[kind]
    damage(tuned)
    with pytest.raises(MergebenchError, match=message) as raised:
        do_import(base, tuned)
    assert str(tuned) in str(raised.value)
    assert not any((base.parents[1] / "specialist_math").iterdir())


def test_a_folder_that_is_not_there_names_the_key(base: Path, tmp_path: Path) -> None:
    with pytest.raises(MergebenchError, match=r"b/math: there is no folder .*gone; correct training\.specialists"):
        do_import(base, tmp_path / "gone")


def adapter(folder: Path, base: Path, targets: tuple[str, ...] = ("q_proj",), **options: Any) -> tuple[Path, Any]:
    """An adapter that peft itself writes for a small Llama, and the weights that peft itself makes of it."""
    peft = pytest.importorskip("peft")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    small = LlamaConfig(
        vocab_size=11, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    model = LlamaForCausalLM(small)
    shutil.rmtree(base)
    model.save_pretrained(base)
    tokens = {f"token{place}": place for place in range(11)}
    (base / "tokenizer.json").write_text(json.dumps({"model": {"vocab": tokens}, "added_tokens": []}))
    settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules=list(targets), init_lora_weights=False, **options)
    adapted = peft.get_peft_model(model, settings)
    adapted.save_pretrained(folder)
    return folder, adapted


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}], ids=["lora", "rslora"])
def test_an_adapter_is_folded_as_peft_folds_it(base: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    folder, adapted = adapter(tmp_path / "adapter", base, ("q_proj", "up_proj"), **options)
    weights, manifest = do_import(base, folder)
    expected = adapted.merge_and_unload().state_dict()
    found = load(weights)
    assert found.keys() == load(base).keys()
    assert all(torch.allclose(tensor, expected[name], atol=1e-6) for name, tensor in found.items())
    assert manifest["imported"]["adapter"]["tensors"] == 4
    assert (weights / "tokenizer.json").is_file()


def test_an_adapter_that_the_formula_does_not_cover_is_refused(base: Path, tmp_path: Path) -> None:
    folder, _ = adapter(tmp_path / "adapter", base, use_dora=True)
    with pytest.raises(MergebenchError, match="is an adapter with use_dora True, which is not folded here: fold it into its base"):
        do_import(base, folder)


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    folder, _ = adapter(tmp_path / "adapter", base)
    file = folder / "adapter_model.safetensors"
    save_file({name.replace("layers.1", "layers.9"): tensor for name, tensor in load_file(file).items()}, file)
    with pytest.raises(MergebenchError, match=r"adapts model\.layers\.9\.self_attn\.q_proj, which the base .* has not got"):
        do_import(base, folder)
