"""Task vectors of a few hundred entries, and the file that the interference stage makes of such."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mergebench.vectors.interference import COLUMNS
from mergebench.vectors.modules import layer_of, module_of

DOMAINS = ("instruction", "math", "multilingual", "coding", "safety")
Taus = Mapping[str, Mapping[str, np.ndarray]]
"""Tensor -> domain -> entries."""


def model(layers: int = 2, size: int = 40, seed: int = 0) -> Taus:
    """Task vectors of a model with two modules in every layer, of very different sizes."""
    generator = np.random.default_rng(seed)
    sizes = {"model.embed_tokens.weight": 3 * size, "model.norm.weight": 4}
    for layer in range(layers):
        sizes |= {f"model.layers.{layer}.self_attn.q_proj.weight": size * (layer + 1), f"model.layers.{layer}.input_layernorm.weight": 4}
    common = {name: generator.normal(size=count) for name, count in sizes.items()}
    return {name: {d: generator.normal(size=count) + common[name] for d in DOMAINS} for name, count in sizes.items()}


def written(root: Path, base: str, taus: Taus, limit: float = 1.0) -> Path:
    """The file of the stage, of a base whose entries are all 2; entries from `limit` on are large."""
    records = []
    for tensor, parts in taus.items():
        domains, count = sorted(parts), len(next(iter(parts.values())))
        large = {d: np.where(np.abs(parts[d]) >= limit, parts[d], 0) for d in domains}
        sign = np.sign(sum(large.values()))
        shared = {}
        for kind, kept in (("", parts), ("large_", large)):
            stacked = np.stack([kept[d] for d in domains])
            shared[f"{kind}shared"] = ((stacked != 0).sum(0) > 1).sum()
            shared[f"{kind}contested"] = ((stacked > 0).any(0) & (stacked < 0).any(0)).sum()
        for a, first in enumerate(domains):
            for second in domains[a:]:
                one, two, one_large, two_large = parts[first], parts[second], large[first], large[second]
                records.append(
                    {
                        "tensor": tensor,
                        "layer": layer_of(tensor),
                        "module": module_of(tensor),
                        "first": first,
                        "second": second,
                        "entries": count,
                        "base_squares": 4.0 * count,
                        "product": one @ two,
                        "agreements": (one * two > 0).sum(),
                        "conflicts": (one * two < 0).sum(),
                        "large_agreements": (one_large * two_large > 0).sum(),
                        "large_conflicts": (one_large * two_large < 0).sum(),
                        "elected": (one_large * sign > 0).sum() if first == second else 0,
                        **shared,
                    }
                )
    path = root / "vectors" / base / "interference.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(records, columns=list(COLUMNS)).astype(COLUMNS).to_parquet(path, index=False)
    return path
