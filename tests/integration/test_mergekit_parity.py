"""mergekit's recipes carried out here and by mergekit itself: the same numbers where the definitions agree.

mergekit's dependencies are its own: MERGEBENCH_MERGEKIT_PYTHON names the interpreter of an environment with `mergekit==0.1.5`.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from mergebench.cli import main

PYTHON = os.environ.get("MERGEBENCH_MERGEKIT_PYTHON")

pytestmark = pytest.mark.skipif(not PYTHON, reason="MERGEBENCH_MERGEKIT_PYTHON names no interpreter with mergekit 0.1.5")

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 61,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}

# Weights and densities per model; mergekit's float32 sums and ours may take another order, hence rounding.
MODELS = [{"weight": 0.7, "density": 0.31}, {"weight": -0.4, "density": 0.62}, {"weight": 1.2, "density": 0.07}]
RECIPES = {
    "linear": {"merge_method": "linear"},
    "linear-sum": {"merge_method": "linear", "parameters": {"normalize": False}},
    "task-arithmetic": {"merge_method": "task_arithmetic", "parameters": {"lambda": 0.8}},
    "task-arithmetic-normalised": {"merge_method": "task_arithmetic", "parameters": {"normalize": True}},
    "ties": {"merge_method": "ties"},
    "ties-sum": {"merge_method": "ties", "parameters": {"normalize": False, "lambda": 0.5, "int8_mask": True}},
    "dare-all": {"merge_method": "dare_linear", "parameters": {"density": 1.0}},
    "dare-ties-all": {"merge_method": "dare_ties", "parameters": {"normalize": True}},
    "dare": {"merge_method": "dare_linear"},
    "dare-plain": {"merge_method": "dare_linear", "parameters": {"rescale": False}},
    "dare-one": {"merge_method": "dare_linear"},
}
EXACT = ("linear", "linear-sum", "task-arithmetic", "task-arithmetic-normalised", "ties", "ties-sum", "dare-all", "dare-ties-all")

RUN = """
import sys, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
for recipe, out in zip(sys.argv[1::2], sys.argv[2::2]):
    content = yaml.safe_load(open(recipe))
    run_merge(MergeConfiguration.model_validate(content), out, MergeOptions(random_seed=7, copy_tokenizer=False, quiet=True))
"""


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models, and for every recipe NAME what mergekit made of it (NAME) and what we did (NAME-ours)."""
    root = tmp_path_factory.mktemp("parity")
    _write_models(root)
    for name, recipe in RECIPES.items():
        (root / f"{name}.yml").write_text(yaml.safe_dump(_complete(root, name, recipe)))
    pairs = [str(root / part) for name in RECIPES for part in (f"{name}.yml", name)]
    done = subprocess.run([str(PYTHON), "-c", RUN, *pairs], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in RECIPES:
        assert main(["merge", str(root / f"{name}.yml"), str(root / f"{name}-ours"), "--quiet", "--threads", "1"]) == 0
    return root


@pytest.mark.parametrize("name", EXACT)
def test_same_definitions_give_the_same_numbers(merged: Path, name: str) -> None:
    theirs, ours = _weights(merged / name), _weights(merged / f"{name}-ours")
    assert theirs.keys() == ours.keys()
    for tensor, expected in theirs.items():
        torch.testing.assert_close(ours[tensor], expected, rtol=2e-6, atol=2e-7, msg=lambda text, tensor=tensor: f"{tensor}: {text}")


@pytest.mark.parametrize("name", ["dare", "dare-plain"])
def test_dare_keeps_the_densities_that_mergekit_keeps(merged: Path, name: str) -> None:
    """Masks are drawn by other generators; how far the merged weights move on the whole does not depend on them."""
    base = _weights(merged / "base")
    moved = [_flat(_weights(merged / folder)) - _flat(base) for folder in (name, f"{name}-ours")]
    assert float(moved[1].norm()) == pytest.approx(float(moved[0].norm()), rel=0.06)
    assert float(moved[1].ne(0).float().mean()) == pytest.approx(float(moved[0].ne(0).float().mean()), abs=0.01)


def test_an_entry_that_dare_keeps_is_rescaled_by_the_sums_of_magnitudes(merged: Path) -> None:
    """With one model every kept entry says what it was multiplied by: mergekit's l1 norms, from the entries that were kept."""
    base, tuned = _weights(merged / "base"), _weights(merged / "model0")
    for folder in ("dare-one", "dare-one-ours"):
        for tensor, values in _weights(merged / folder).items():
            vector, moved = tuned[tensor] - base[tensor], values - base[tensor]
            kept = moved.ne(0)
            factor = 0.7 * vector.abs().sum() / vector[kept].abs().sum()
            torch.testing.assert_close(moved[kept], vector[kept] * factor, rtol=1e-4, atol=1e-6)


def _write_models(root: Path) -> None:
    random = torch.Generator().manual_seed(3)
    hidden, wide, narrow, rows = CONFIG["hidden_size"], CONFIG["intermediate_size"], 16, CONFIG["vocab_size"]
    shapes = {"model.embed_tokens.weight": (rows, hidden), "lm_head.weight": (rows, hidden), "model.norm.weight": (hidden,)}
    for layer in range(2):
        prefix = f"model.layers.{layer}"
        shapes |= {f"{prefix}.{norm}.weight": (hidden,) for norm in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"{prefix}.self_attn.{part}_proj.weight": (hidden, hidden) for part in "qo"}
        shapes |= {f"{prefix}.self_attn.{part}_proj.weight": (narrow, hidden) for part in "kv"}
        shapes |= {f"{prefix}.mlp.{part}_proj.weight": (wide, hidden) for part in ("gate", "up")}
        shapes[f"{prefix}.mlp.down_proj.weight"] = (hidden, wide)
    base = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    for folder in ("base", "model0", "model1", "model2"):
        (root / folder).mkdir()
        tensors = base if folder == "base" else {n: v + 0.1 * torch.randn(v.shape, generator=random) for n, v in base.items()}
        save_file(tensors, root / folder / "model.safetensors", metadata={"format": "pt"})
        (root / folder / "config.json").write_text(json.dumps(CONFIG))


def _complete(root: Path, name: str, recipe: dict) -> dict:
    models = [{"model": str(root / f"model{number}"), "parameters": dict(own)} for number, own in enumerate(MODELS)]
    if name == "linear-sum":
        for entry, weight in zip(models, (0.5, 0.2, 0.3), strict=True):
            entry["parameters"] = {"weight": weight}
    if recipe["merge_method"] == "linear":
        for entry in models:
            entry["parameters"].pop("density", None)
        return {**recipe, "models": models, "dtype": "float32"}
    for entry in models:
        if name.endswith("-all"):
            entry["parameters"]["density"] = 1.0
    return {**recipe, "base_model": str(root / "base"), "models": models[:1] if name == "dare-one" else models, "dtype": "float32"}


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()}


def _flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])
