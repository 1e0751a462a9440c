"""Every method against its published formula, written independently in float64 (`naive.py`)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mergebench.merging import counter
from mergebench.merging.engine import apply, directions
from mergebench.merging.registry import get, methods
from tests.reference import naive
from tests.reference.pico import Family, family


@pytest.fixture(scope="module", params=["untied", "tied-bf16", "three"])
def models(request, tmp_path_factory) -> Family:
    options = {
        "untied": {},
        "tied-bf16": {"tied": True, "dtype": torch.bfloat16, "seed": 1},
        "three": {"n": 3, "bias": False, "seed": 2},
    }
    return family(tmp_path_factory.mktemp("family"), **options[request.param])


def double(tensors: dict[str, torch.Tensor]) -> naive.Model:
    return {name: tensor.double().numpy() for name, tensor in tensors.items()}


def statistics(models: Family, kind: str) -> list[naive.Model]:
    return [double(models.statistics[kind, domain]) for domain in models.folders]


def whole_masks(models: Family) -> list[np.ndarray]:
    """The trained masks as flat vectors; a parameter without a mask is not selected."""
    base = double(models.base)
    found = statistics(models, "mask")
    return [naive.flatten({name: each.get(name, np.zeros(base[name].shape)) for name in base}) != 0 for each in found]


def dare_masks(models: Family, seed: int, density: float) -> list[np.ndarray]:
    sizes = {name: tensor.numel() for name, tensor in models.base.items()}
    return [
        np.concatenate([counter.keep(counter.key(seed, domain, name), sizes[name], density) for name in sorted(sizes)])
        for domain in models.folders
    ]


THRESHOLDS = {"instruction": 0.2, "math": 0.3, "multilingual": 0.4, "coding": 0.5, "safety": 0.6}

CASES = {
    "model_soup": [({}, lambda m: {})],
    "task_arithmetic": [({"scale": 0.3}, lambda m: {"scale": 0.3})],
    "fisher": [
        ({"normalise": n, "floor": floor}, lambda m, n=n, floor=floor: {"fishers": statistics(m, "fisher"), "normalise": n, "floor": floor})
        for n in (True, False)
        for floor in (1e-6, 0.03)
    ],
    "regmean": [({"reduction": a}, lambda m, a=a: {"grams": statistics(m, "gram"), "reduction": a}) for a in (0.0, 0.1, 0.9, 1.0)],
    "ties": [
        (given := {"density": k, "scale": s, "aggregate": a, "zero_sign": z}, lambda m, given=given: given)
        for k, s, a, z in [
            (0.2, 1.0, "mean", "majority"),
            (0.1, 0.4, "sum", "positive"),
            (0.5, 0.7, "max", "drop"),
            (1.0, 1.0, "mean", "majority"),
        ]
    ],
    "dare": [
        ({"density": k, "scale": 0.4}, lambda m, k=k: {"density": k, "scale": 0.4, "masks": dare_masks(m, 7, k)}) for k in (0.1, 0.5, 1.0)
    ],
    "consensus_ta": [
        (
            {"thresholds": THRESHOLDS, "agreement": k, "scale": 0.5},
            lambda m, k=k: {"thresholds": [THRESHOLDS[d] for d in m.folders], "agreement": k, "scale": 0.5},
        )
        for k in (1, 2, 3)
    ]
    + [({"thresholds": 0.4, "scale": 1.0}, lambda m: {"thresholds": [0.4] * len(m.folders), "agreement": 2, "scale": 1.0})],
    "dataless_localize_and_stitch": [({"density": k}, lambda m, k=k: {"density": k}) for k in (0.1, 0.5, 1.0)],
    "localize_and_stitch": [({}, lambda m: {"masks": whole_masks(m)})],
}


@pytest.mark.parametrize(("method", "case"), [(method, case) for method, cases in CASES.items() for case in range(len(cases))])
def test_method_is_the_published_formula(models: Family, method: str, case: int) -> None:
    parameters, arguments = CASES[method][case]
    base = double(models.base)
    specialists = [double(tensors) for tensors in models.specialists.values()]
    expected = getattr(naive, method)(base, specialists, **arguments(models))
    found = dict(directions(models.open(), method, parameters, seed=7))
    _, scale = get(method).split(parameters)
    assert found.keys() == expected.keys()
    for name, direction in found.items():
        merged = apply(models.base[name], direction, scale).double().numpy()
        np.testing.assert_allclose(merged, expected[name], rtol=1e-5, atol=2e-6, err_msg=name)


def test_a_threshold_is_tuned_on_the_single_task_model(models: Family) -> None:
    for index, domain in enumerate(models.folders):
        found = directions(models.open(), "consensus_ta", {"thresholds": {domain: 0.3}, "only": domain})
        base = double(models.base)
        expected = naive.single_task(base, [double(tensors) for tensors in models.specialists.values()], index=index, threshold=0.3)
        for name, direction in found:
            np.testing.assert_allclose(base[name] + direction.double().numpy(), expected[name], atol=2e-6, err_msg=name)


def test_every_method_has_a_reference() -> None:
    assert CASES.keys() == methods().keys()
