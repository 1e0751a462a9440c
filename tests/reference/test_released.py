"""The preset `released` against the released code's own steps, in its own arithmetic (`released.py`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mergebench.checkpoints.reader import Checkpoint
from mergebench.merging import presets
from mergebench.merging.engine import merge
from tests.reference import released
from tests.reference.pico import Family, family

ORDER = ("instruction", "math", "coding", "safety", "multilingual")


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def models(request, tmp_path_factory) -> Family:
    return family(tmp_path_factory.mktemp("family"), dtype=torch.bfloat16, tied=request.param, seed=5)


def specialists(models: Family) -> list[released.Model]:
    return [released.ordered(models.specialists[domain]) for domain in ORDER]


def statistics(models: Family, kind: str) -> list[released.Model]:
    return [models.statistics[kind, domain] for domain in ORDER]


def merged(models: Family, folder: Path, method: str, parameters: dict[str, Any]) -> Checkpoint:
    settings = presets.settings("released", method)
    chosen = presets.parameters("released", method, parameters)
    merge(models.open(), method, chosen, folder=folder, scope=settings.scope, arithmetic=settings.arithmetic)
    return Checkpoint(folder)


CASES = [
    ("task_arithmetic", {"scale": 0.3}),
    ("task_arithmetic", {"scale": 1.0}),
    ("ties", {"density": 0.2, "scale": 0.7}),
    ("ties", {"density": 0.9, "scale": 1.0}),
    ("consensus_ta", {"scale": 0.4}),
    ("dataless_localize_and_stitch", {"density": 0.1}),
    ("dataless_localize_and_stitch", {"density": 0.5}),
    ("dataless_localize_and_stitch", {"density": 0.9}),
    ("localize_and_stitch", {}),
    ("regmean", {"reduction": 0.1}),
    ("regmean", {"reduction": 0.9}),
    ("fisher", {}),
]


@pytest.mark.parametrize(("method", "parameters"), CASES)
def test_the_preset_is_the_released_code(models: Family, tmp_path: Path, method: str, parameters: dict[str, Any]) -> None:
    base = released.ordered(models.base)
    extra: dict[str, Any] = {}
    if method == "localize_and_stitch":
        extra["masks"] = [
            released.flatten({name: each.get(name, torch.zeros(value.shape, dtype=torch.bool)) for name, value in base.items()})
            for each in statistics(models, "mask")
        ]
    if method in ("regmean", "fisher"):
        extra = {"grams" if method == "regmean" else "fishers": statistics(models, "gram" if method == "regmean" else "fisher")}
    name = method.removeprefix("dataless_")
    expected = getattr(released, name)(base, specialists(models), **parameters, **extra)
    found = merged(models, tmp_path / "merged", method, parameters)
    for tensor, value in expected.items():
        assert torch.equal(found.tensor(tensor), value), tensor
