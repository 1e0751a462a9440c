"""Pico checkpoints: real folders with a few hundred random weights, for tests of reading, writing and merging."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mergebench.merging.models import Models
from mergebench.merging.statistics.store import save_statistics

DOMAINS = ("instruction", "math", "multilingual", "coding", "safety")
KINDS = ("fisher", "gram", "mask")


def shapes(*, tied: bool = False, bias: bool = True, width: int = 6) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a two-layer model, a one-element tensor and a scalar among them."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (11, width), "model.norm.weight": (width,)}
    for layer in range(2):
        found[f"model.layers.{layer}.self_attn.q_proj.weight"] = (width, width)
        found[f"model.layers.{layer}.mlp.up_proj.weight"] = (width * 3 // 2, width)
        found[f"model.layers.{layer}.mlp.down_proj.weight"] = (width, width * 3 // 2)
        found[f"model.layers.{layer}.norm.weight"] = (width,)
        if bias:
            found[f"model.layers.{layer}.self_attn.q_proj.bias"] = (width,)
    found["model.layers.0.gain"] = (1,)
    found["model.layers.1.gain"] = ()
    if not tied:
        found["lm_head.weight"] = (11, width)
    return found


def write_checkpoint(
    folder: Path,
    tensors: dict[str, torch.Tensor],
    *,
    shards: int = 1,
    config: dict | None = None,
    vocabulary: dict[str, int] | None = None,
) -> Path:
    """Write a checkpoint as transformers would, in one file or in shards with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    tied = "lm_head.weight" not in tensors
    (folder / "config.json").write_text(json.dumps({"tie_word_embeddings": tied, **(config or {})}))
    tokens = vocabulary or {f"token{place}": place for place in range(11)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": tokens}, "added_tokens": []}))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    places = {}
    for number in range(shards):
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = dict(list(tensors.items())[number::shards])
        save_file(part, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(part, name))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


@dataclass
class Family:
    """A base, its specialists, and their tensors as written.

    Attributes:
        base_folder, folders: Where the base and (by domain) the specialists are.
        base, specialists: Their tensors; specialists by domain.
        statistics: (kind, domain) -> tensors by name.
        files: Statistics files.
    """

    base_folder: Path
    folders: dict[str, Path]
    base: dict[str, torch.Tensor]
    specialists: dict[str, dict[str, torch.Tensor]]
    statistics: dict[tuple[str, str], dict[str, torch.Tensor]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def open(self, order: tuple[str, ...] | None = None, **options: Any) -> Models:
        """The models, the specialists given in `order`."""
        domains = order or tuple(self.folders)
        models = Models.open(self.base_folder, {domain: self.folders[domain] for domain in domains}, statistics=self.files, **options)
        models.propagation = FixedInputs({domain: self.statistics["gram", domain] for domain in domains})
        return models


@dataclass
class FixedInputs:
    """Stands for calibration samples on their way through the merged layers: inputs that no layer changes.

    Attributes:
        grams: Domain -> Gram matrices by parameter name.
        passed: The stages that have been merged.
    """

    grams: dict[str, dict[str, torch.Tensor]]
    passed: list[int] = field(default_factory=list)
    device: str = "cpu"

    def begin(self, identity: Mapping[str, Any]) -> None:
        json.dumps(identity)

    def finished(self, stage: int) -> None:
        return None

    def stages(self, names: Sequence[str]) -> list[list[str]]:
        return [
            [name for name in names if "embed" in name],
            *([name for name in names if f"layers.{layer}." in name] for layer in range(2)),
            [name for name in names if "embed" not in name and "layers." not in name],
        ]

    def measure(self, stage: int, domain: str, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        assert stage == 0 or self.passed == list(range(stage)), "a stage is measured before the ones below it are merged"
        return {name: self.grams[domain][name] for name in weights if name in self.grams[domain]}

    def advance(self, stage: int, weights: Mapping[str, torch.Tensor], directions: Mapping[str, torch.Tensor]) -> None:
        self.passed = list(range(stage + 1))


def family(
    folder: Path,
    *,
    n: int = 5,
    tied: bool = False,
    bias: bool = True,
    dtype: torch.dtype = torch.float32,
    shards: int = 1,
    identical: bool = False,
    seed: int = 0,
    width: int = 6,
) -> Family:
    """A base, `n` specialists near it (one tensor unchanged in all, many entries unchanged in each), and statistics."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random)

    layout = shapes(tied=tied, bias=bias, width=width)
    base = {name: normal(*shape).to(dtype) for name, shape in layout.items()}
    found = Family(write_checkpoint(folder / "base", base, shards=shards), {}, base, {})
    moves: dict[str, torch.Tensor] = {}
    for domain in DOMAINS[:n]:
        if not moves or not identical:
            moves = {name: 0.1 * normal(*shape) * (normal(*shape) > -0.5) for name, shape in layout.items()}
            moves["model.layers.1.norm.weight"] = torch.zeros(layout["model.layers.1.norm.weight"])
        tuned = {name: (value.float() + moves[name]).to(dtype) for name, value in base.items()}
        found.folders[domain] = write_checkpoint(folder / f"specialist_{domain}", tuned, shards=shards)
        found.specialists[domain] = tuned
        _measure(found, folder, domain, layout, normal)
    return found


def _measure(found: Family, folder: Path, domain: str, layout: dict[str, tuple[int, ...]], normal) -> None:
    linear = {name: shape for name, shape in layout.items() if "proj.weight" in name or name == "lm_head.weight"}
    inputs = {name: normal(40, shape[1]) for name, shape in linear.items()}
    measured = {
        "fisher": {name: normal(*shape).square() for name, shape in layout.items()},
        "gram": {name: x.T @ x / len(x) for name, x in inputs.items()},
        "mask": {name: normal(*shape) > 0.3 for name, shape in layout.items() if name.startswith("model.layers")},
    }
    for kind, tensors in measured.items():
        found.statistics[kind, domain] = tensors
        path = folder / f"{kind}_{domain}.safetensors"
        save_statistics(path, tensors, {"kind": kind, "domain": domain})
        found.files.append(path)
