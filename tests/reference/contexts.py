"""What a method sees, made by hand for tests of single formulas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mergebench.merging.block import Shared
from mergebench.merging.context import Matrices, Tensors
from mergebench.merging.cuts import NOTHING, Cuts, Request
from mergebench.merging.directions import Direction
from mergebench.merging.registry import Method
from mergebench.merging.report import Facts
from tests.reference.pico import DOMAINS

NAMES = "abcdefg"


def given_vectors(*vectors: list, **options: Any) -> Tensors:
    """A piece with these task vectors and a base of zeros; thresholds keep every nonzero entry."""
    stacked = torch.tensor(vectors, dtype=torch.float32)
    limits = options.pop("limits", lambda request: (np.ones(len(vectors), np.uint32), np.zeros(len(vectors), np.int64)))
    return Tensors("w", torch.zeros(stacked.shape[1:]), stacked, tuple(NAMES[: len(vectors)]), limits=limits, **options)


def given_layer(vectors: torch.Tensor, grams: Sequence[torch.Tensor] | None = None, name: str = "w") -> Matrices:
    """A whole parameter with these task vectors (n, *shape) and a base of zeros, and the Gram matrices of its inputs."""
    domains = tuple(NAMES[: len(vectors)])
    return Matrices(
        name,
        tuple(vectors.shape[1:]),
        domains,
        lambda row: torch.zeros(vectors.shape[1:]) if row is None else vectors[row].clone(),
        find=lambda kind, domain, name: None if grams is None else grams[domains.index(domain)],
    )


def definition(direction: Direction, shared: Shared, facts: Facts | None = None) -> torch.Tensor:
    """What a method's torch definition returns for a block, flattened."""
    found = direction.method.direction(direction._tensors(shared, facts or Facts()), **direction.values)
    return found.reshape(-1).float()


class OwnThresholds(Cuts):
    """Thresholds of a single block, as if it were the whole model."""

    def __init__(self, vectors: np.ndarray, domains: tuple[str, ...]) -> None:
        super().__init__(domains, vectors.shape[1])
        self.bits = np.sort(np.abs(vectors).view(np.uint32), axis=1)[:, ::-1]

    def limits(self, request: Request, name: str, offset: int) -> tuple[np.ndarray, np.ndarray]:
        limits, spares = np.full(len(self.bits), NOTHING, np.uint32), np.zeros(len(self.bits), np.int64)
        for row, bits in enumerate(self.bits):
            wanted = min(request.wanted(row, bits.size), np.count_nonzero(bits))
            if wanted:
                limits[row] = bits[wanted - 1] + (request.ties != "all")
                spares[row] = wanted - np.count_nonzero(bits >= limits[row]) if request.ties == "exact" else 0
        return limits, spares


def random_block(n: int, seed: int, size: int = 301) -> Shared:
    """A block of numbers of all magnitudes: zeros of both signs, denormals, equal magnitudes, entries that cancel; and statistics."""
    random = np.random.default_rng(seed)
    domains = tuple(sorted(DOMAINS[:n]))
    scale = random.choice([1e-40, 1e-6, 1, 100], size=(n, size))
    vectors = (random.normal(size=(n, size)) * scale).astype(np.float32)
    coarse = random.random((n, size)) < 0.4
    vectors[coarse] = np.round(vectors[coarse] * 4) / 4
    vectors[random.random((n, size)) < 0.1] = -0.0
    opposite = random.random(size) < 0.2
    vectors[n - 1, opposite] = -vectors[0, opposite]
    measured = {
        "fisher": (random.normal(size=(n, size)) ** 2).astype(np.float32),
        "mask": random.random((n, size)) < 0.5,
    }

    def find(kind: str, domain: str, name: str, start: int, stop: int) -> np.ndarray | None:
        return measured[kind][domains.index(domain)][: stop - start] if kind in measured else None

    base = random.normal(size=size).astype(np.float32)
    return Shared("model.layers.0.mlp.up_proj.weight", 64, base, vectors, domains, OwnThresholds(vectors, domains), find)


def every_behaviour(method: Method) -> list[dict[str, Any]]:
    """The defaults, and each parameter changed alone: every word of a choice, both flags, the ends of a range, one value per domain."""
    found: list[dict[str, Any]] = [{}]
    for name, parameter in method.parameters.items():
        values: list[Any] = list(parameter.choices)
        if parameter.kind == "flag":
            values = [True, False]
        elif parameter.kind == "domain":
            values = ["math"]
        elif parameter.kind in ("number", "numbers", "integer"):
            low, high = (parameter.range.low, parameter.range.high) if parameter.range else (0.25, 2.0)
            values = [int(low), 3] if parameter.kind == "integer" else [low, (low + 3 * min(high, 1.0)) / 4, high]
        if parameter.kind == "numbers":
            values.append({domain: 0.1 + 0.2 * place for place, domain in enumerate(DOMAINS)})
        found += [{name: value} for value in values if value != parameter.default]
    return found
