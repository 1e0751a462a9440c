"""Every method against its published formula, written independently in float64 (`naive.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


Parameters = Callable[[Family], dict[str, Any]]

THRESHOLDS = {"instruction": 0.2, "math": 0.3, "multilingual": 0.4, "coding": 0.5, "safety": 0.6}

WEIGHTS = {"instruction": 1.0, "math": 0.5, "multilingual": 2.0, "coding": 0.25, "safety": 1.5}
DENSITIES = {"instruction": 0.1, "math": 0.9, "multilingual": 0.5, "coding": 0.3, "safety": 0.7}


def listed(values: dict[str, float], m: Family) -> list[float]:
    """A parameter with one value per domain, in the order of the models."""
    return [values[domain] for domain in m.folders]


def given(values: dict[str, float], m: Family) -> dict[str, float]:
    return {domain: values[domain] for domain in m.folders}


def sizes(m: Family) -> list[int]:
    return [m.base[name].numel() for name in sorted(m.base)]


def same(parameters: dict[str, object]) -> tuple[Parameters, Parameters]:
    """A case whose formula takes the method's own parameters."""
    return (lambda m: parameters), (lambda m: parameters)


CASES: dict[str, list[tuple[Parameters, Parameters]]] = {
    "model_soup": [same({}), (lambda m: {"weights": given(WEIGHTS, m)}, lambda m: {"weights": listed(WEIGHTS, m)})],
    "task_arithmetic": [
        same({"scale": 0.3}),
        *(
            (
                lambda m, n=n: {"scale": 0.3, "weights": given(WEIGHTS, m), "normalise": n},
                lambda m, n=n: {"scale": 0.3, "weights": listed(WEIGHTS, m), "normalise": n},
            )
            for n in (False, True)
        ),
    ],
    "fisher": [
        *(
            (lambda m, p=p: p, lambda m, p=p: {**p, "fishers": statistics(m, "fisher")})
            for n in (True, False)
            for floor in (1e-6, 0.03)
            for smoothing in ("floor", "add")
            for p in [{"normalise": n, "floor": floor, "smoothing": smoothing}]
        ),
        *(
            (
                lambda m, p=p: {**p, "weights": given(WEIGHTS, m)},
                lambda m, p=p: {**p, "weights": listed(WEIGHTS, m), "fishers": statistics(m, "fisher")},
            )
            for p in [{"normalise": n, "floor": 0.03} for n in (True, False)]
        ),
    ],
    "regmean": [
        (lambda m, a=a: {"reduction": a}, lambda m, a=a: {"grams": statistics(m, "gram"), "reduction": a}) for a in (0.0, 0.1, 0.9, 1.0)
    ],
    "regmean_plus_plus": [
        (lambda m, a=a: {"reduction": a}, lambda m, a=a: {"grams": statistics(m, "gram"), "reduction": a}) for a in (0.1, 1.0)
    ],
    "ties": [
        *(
            same({"density": k, "scale": s, "aggregate": a, "zero_sign": z, "ties": t, "count": c})
            for k, s, a, z, t, c in [
                (0.2, 1.0, "mean", "majority", "all", "nearest"),
                (0.1, 0.4, "sum", "positive", "strict", "floor"),
                (0.5, 0.7, "max", "drop", "exact", "above"),
                (1.0, 1.0, "mean", "majority", "all", "nearest"),
            ]
        ),
        *(
            (
                lambda m, p=p: {**p, "threshold_scope": "tensor", "weights": given(WEIGHTS, m), "density": given(DENSITIES, m)},
                lambda m, p=p: {**p, "sizes": sizes(m), "weights": listed(WEIGHTS, m), "density": listed(DENSITIES, m)},
            )
            for t in ("all", "strict", "exact")
            for p in [{"scale": 0.5, "ties": t, "zero_sign": "positive", "count": "floor"}]
        ),
    ],
    "dare": [
        *(
            (lambda m, p=p: p, lambda m, p=p: {**p, "masks": dare_masks(m, 7, p["density"]), "sizes": sizes(m)})
            for k in (0.1, 0.5, 1.0)
            for r in ("inv_keep", "l1", "none")
            for p in [{"density": k, "scale": 0.4, "rescale": r}]
        ),
        *(
            (
                lambda m, p=p: {**p, "weights": given(WEIGHTS, m)},
                lambda m, p=p: {**p, "weights": listed(WEIGHTS, m), "masks": dare_masks(m, 7, 0.4)},
            )
            for n in (False, True)
            for e in (False, True)
            for p in [{"density": 0.4, "scale": 1.0, "normalise": n, "elect_signs": e}]
        ),
    ],
    "consensus_ta": [
        *(
            (
                lambda m, k=k: {"thresholds": given(THRESHOLDS, m), "agreement": k, "scale": 0.5},
                lambda m, k=k: {"thresholds": listed(THRESHOLDS, m), "agreement": k, "scale": 0.5},
            )
            for k in (1, 2, 3)
        ),
        (
            lambda m: {"thresholds": 0.4, "scale": 1.0},
            lambda m: {"thresholds": [0.4] * len(m.folders), "agreement": 2, "scale": 1.0},
        ),
    ],
    "dataless_localize_and_stitch": [
        *(same({"density": k, "ties": t}) for k in (0.1, 0.5, 1.0) for t in ("all", "strict", "exact")),
        (lambda m: {"density": 0.3, "threshold_scope": "tensor"}, lambda m: {"density": 0.3, "sizes": sizes(m)}),
    ],
    "localize_and_stitch": [(lambda m: {}, lambda m: {"masks": whole_masks(m)})],
    "random_direction": [(lambda m: {}, lambda m: {"seed": 7})],
}


@pytest.mark.parametrize(("method", "case"), [(method, case) for method, cases in CASES.items() for case in range(len(cases))])
def test_method_is_the_published_formula(models: Family, method: str, case: int) -> None:
    chosen, arguments = CASES[method][case]
    parameters = chosen(models)
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
