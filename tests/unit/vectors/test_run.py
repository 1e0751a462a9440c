"""The vectors stage and the task vector it measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mergebench.artifacts import Job, execute, read_json
from mergebench.checkpoints.digest import weights_digest
from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.vectors import run
from mergebench.vectors.pieces import base_loader, vector_loader
from mergebench.vectors.spectrum import Spectrum
from tests.reference.pico import Family, family


def measure(found: Family, folder: Path, **spec: str) -> dict:
    outputs = {"manifest": folder / "manifest.json", "spectrum": folder / "spectrum.npz"}
    inputs = {"base": found.base_folder, "specialist": found.folders["math"]}
    execute(run, Job("vectors", {"base": "pico", "domain": "math", **spec}, inputs, outputs, folder / "state"))
    return read_json(outputs["manifest"])


def test_the_facts_are_those_of_the_difference(tmp_path: Path) -> None:
    found = family(tmp_path, n=2)
    manifest = measure(found, tmp_path / "vectors")
    base = torch.cat([tensor.flatten() for tensor in found.base.values()]).double()
    tau = torch.cat([(found.specialists["math"][name] - tensor).flatten() for name, tensor in found.base.items()]).double()
    assert manifest["parameters"] == tau.numel()
    assert manifest["norm"] == pytest.approx(float(tau.norm()), rel=1e-6)
    assert manifest["relative_norm"] == pytest.approx(float(tau.norm() / base.norm()), rel=1e-6)
    assert manifest["zero_fraction"] == pytest.approx(float((tau == 0).double().mean()))
    assert manifest["tensors"]["model.layers.1.norm.weight"]["norm"] == 0
    assert manifest["digests"] == {"base": weights_digest(found.base_folder), "specialist": weights_digest(found.folders["math"])}
    assert Spectrum.load(tmp_path / "vectors/spectrum.npz").origin == manifest["digests"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_differences_are_exact(tmp_path: Path, dtype: torch.dtype) -> None:
    found = family(tmp_path, n=1, dtype=dtype)
    base, specialist = Checkpoint(found.base_folder), Checkpoint(found.folders["instruction"])
    for name, info in base.tensors.items():
        origin, vector = np.empty(info.size, np.float32), np.empty(info.size, np.float32)
        base_loader(base, name, 0, info.size)(0, origin)
        vector_loader(specialist, name, 0, info.size)(0, origin, vector)
        exact = specialist.tensor(name).double() - base.tensor(name).double()
        assert np.array_equal(origin, base.tensor(name).float().numpy().ravel())
        assert np.array_equal(vector, exact.float().numpy().ravel())


def extend_vocabulary(found: Family) -> None:
    tensors = dict(found.specialists["math"])
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat([tensors[name], torch.ones(3, 6)])
    save_file(tensors, found.folders["math"] / "model.safetensors")


def test_extra_vocabulary_is_refused_or_dropped(tmp_path: Path) -> None:
    found = family(tmp_path, n=2)
    extend_vocabulary(found)
    with pytest.raises(MergebenchError, match=r"specialist_math has 14 rows in lm_head\.weight, the base 11; set vocabulary"):
        measure(found, tmp_path / "vectors")
    manifest = measure(found, tmp_path / "vectors", vocabulary="base")
    assert [note["check"] for note in manifest["audit"]] == ["vocabulary", "vocabulary"]
    assert manifest["parameters"] == sum(tensor.numel() for tensor in found.base.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    found = family(tmp_path, n=2)
    tensors = dict(found.specialists["math"])
    tensors["model.norm.weight"] = torch.full((6,), value)
    save_file(tensors, found.folders["math"] / "model.safetensors")
    with pytest.raises(MergebenchError, match=r"'model\.norm\.weight' of .*specialist_math has values that are NaN or infinite"):
        measure(found, tmp_path / "vectors")
    assert not (tmp_path / "vectors/manifest.json").exists()
