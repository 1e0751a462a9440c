"""RegMean++ on real forward passes: its Gram matrices, and what they come to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.merging.engine import directions, merge
from mergebench.merging.models import Models
from mergebench.merging.statistics.gram import Gram
from mergebench.merging.statistics.propagation import LayerInputs
from mergebench.merging.statistics.store import save_statistics
from mergebench.training.export import export_weights
from mergebench.training.models import load_model

REDUCTION = 0.9


@pytest.fixture
def folders(pico_base, tmp_path) -> dict[str, Path]:
    """Two specialists that left the embedding as it was."""
    found = {}
    for seed, domain in enumerate(("math", "safety")):
        model = load_model(pico_base)
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "embed" not in name:
                    parameter.add_(0.2 * torch.randn_like(parameter))
        found[domain] = tmp_path / domain
        found[domain].mkdir()
        export_weights(model.state_dict(), pico_base, found[domain])
    return found


@pytest.fixture
def samples(examples):
    return {"math": examples[:7], "safety": examples[7:]}


def opened(pico_base, folders, samples, **options) -> Models:
    models = Models.open(pico_base, folders, **options)
    models.propagation = LayerInputs(load_model(pico_base), samples, 0, batch_size=3)
    return models


def gram(model, samples) -> dict[str, torch.Tensor]:
    with Gram(model, 0) as measured:
        measured.add(samples)
    matrices = measured.result()
    return matrices | {name: matrices[first].clone() for name, first in measured.aliases.items()}


def test_the_first_layer_is_regmean_s(pico_base, folders, samples, tmp_path):
    """Its inputs have passed nothing but the embedding, which all models share."""
    files = []
    for domain, folder in folders.items():
        files.append(tmp_path / f"{domain}.safetensors")
        save_statistics(files[-1], gram(load_model(folder), samples[domain]), {"kind": "gram", "domain": domain})
    models = opened(pico_base, folders, samples, statistics=files)
    expected = dict(directions(models, "regmean", {"reduction": REDUCTION}))
    found = dict(directions(models, "regmean_plus_plus", {"reduction": REDUCTION}))
    assert found.keys() == expected.keys()
    for name, direction in found.items():
        if "layers.0." in name or direction.dim() == 1:
            torch.testing.assert_close(direction, expected[name], rtol=1e-3, atol=1e-5)
    assert any(not torch.allclose(found[name], expected[name], rtol=1e-2) for name in found if "layers.1." in name)


def test_later_layers_see_what_merged_layers_pass_on(pico_base, folders, samples, tmp_path):
    models = opened(pico_base, folders, samples)
    merge(models, "regmean_plus_plus", {"reduction": REDUCTION}, folder=tmp_path / "merged")
    merged = {name: Checkpoint(tmp_path / "merged").tensor(name) for name in models.base.names}
    base = {name: models.base.tensor(name) for name in merged}
    left, right = 0, 0
    name = "model.layers.1.mlp.down_proj.weight"
    for domain, folder in folders.items():
        # The merged model below, the specialist in this layer.
        mixed = {key: Checkpoint(folder).tensor(key) if "layers.1." in key else value for key, value in merged.items()}
        model = load_model(pico_base)
        model.load_state_dict(mixed, strict=False)
        matrix = gram(model, samples[domain])[name].double()
        shrunk = torch.where(torch.eye(len(matrix), dtype=torch.bool), matrix, REDUCTION * matrix)
        left = left + shrunk
        right = right + shrunk @ (mixed[name] - base[name]).double().T
    expected = torch.linalg.solve(left, right).T.float()
    torch.testing.assert_close(merged[name] - base[name], expected, rtol=1e-3, atol=1e-4)


def test_identical_specialists_come_out_unchanged(pico_base, folders, samples, tmp_path):
    same = {"math": folders["math"], "safety": folders["math"]}
    merge(opened(pico_base, same, samples), "regmean_plus_plus", folder=tmp_path / "merged")
    merged, expected = Checkpoint(tmp_path / "merged"), Checkpoint(folders["math"])
    for name in expected.names:
        torch.testing.assert_close(merged.tensor(name), expected.tensor(name), rtol=1e-5, atol=1e-5)


def test_what_is_missing_is_named(pico_base, folders):
    with pytest.raises(MergebenchError, match=r"regmean_plus_plus passes calibration samples .* none were given"):
        list(directions(Models.open(pico_base, folders), "regmean_plus_plus"))
    with pytest.raises(MergebenchError, match="safety has no calibration samples"):
        LayerInputs(load_model(pico_base), {"safety": []}, 0)
    with pytest.raises(MergebenchError, match="Linear does not keep embedding, layers and norm"):
        LayerInputs(torch.nn.Linear(2, 2), {}, 0)
