"""What holds for every method, present and future: a new file in `merging/methods/` is tested here by being there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.merging.engine import apply, directions, merge
from mergebench.merging.models import Models
from mergebench.merging.registry import Method, get, methods
from mergebench.merging.statistics.store import save_statistics
from tests.reference.pico import Family, family

METHODS = list(methods())
VARIANTS = {
    "untied": {},
    "tied": {"tied": True},
    "no bias": {"bias": False},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
}

every_method = pytest.mark.parametrize("name", METHODS)
with_density = pytest.mark.parametrize("name", [name for name in METHODS if "density" in get(name).parameters])
with_statistics = pytest.mark.parametrize("name", [name for name in METHODS if get(name).statistics])


@pytest.fixture(scope="module")
def five(tmp_path_factory) -> Family:
    return family(tmp_path_factory.mktemp("five"))


def keep_all(method: Method) -> dict[str, object]:
    """The parameters with which a method drops nothing at random or by size."""
    return {"density": 1.0} if "density" in method.parameters else {}


def full_masks(found: Family) -> Models:
    """The models with trained masks that select everything."""
    for path in found.files:
        if path.name.startswith("mask_"):
            domain = path.stem.removeprefix("mask_")
            ones = {name: torch.ones(tensor.shape, dtype=torch.bool) for name, tensor in found.base.items()}
            save_statistics(path, ones, {"kind": "mask", "domain": domain})
    return found.open()


def hashes(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


@every_method
@pytest.mark.parametrize("variant", VARIANTS)
def test_one_specialist_is_returned(name: str, variant: str, tmp_path: Path) -> None:
    method = get(name)
    found = family(tmp_path, n=1, **VARIANTS[variant])
    scale = {"scale": 1.0} if method.scaled else {}
    merge(full_masks(found), name, keep_all(method) | scale, folder=tmp_path / "merged")
    merged = Checkpoint(tmp_path / "merged")
    for tensor, expected in found.specialists["instruction"].items():
        if expected.dtype == torch.float32:
            torch.testing.assert_close(merged.tensor(tensor), expected, rtol=1e-6, atol=1e-6)
        else:
            assert torch.equal(merged.tensor(tensor), expected), tensor


@every_method
def test_identical_specialists_give_their_task_vector(name: str, tmp_path: Path) -> None:
    method = get(name)
    found = family(tmp_path, identical=True)
    vectors = {tensor: found.specialists["math"][tensor] - value for tensor, value in found.base.items()}
    moved = dict(directions(full_masks(found), name, keep_all(method)))
    tau = torch.cat([vectors[tensor].flatten() for tensor in moved])
    direction = torch.cat([value.flatten() for value in moved.values()])
    # A method with a scale may give any multiple of the task vector, the others the vector itself.
    factor = float(direction @ tau / (tau @ tau)) if method.scaled else 1.0
    torch.testing.assert_close(direction, factor * tau, rtol=1e-5, atol=1e-6)


@every_method
def test_the_order_of_specialists_changes_nothing(name: str, five: Family) -> None:
    order = tuple(five.folders)
    first = dict(directions(five.open(), name, seed=3))
    for other in (order[::-1], order[2:] + order[:2]):
        for tensor, direction in directions(five.open(other), name, seed=3):
            assert torch.equal(direction, first[tensor]), tensor


@every_method
def test_inputs_are_left_alone(name: str, tmp_path: Path) -> None:
    found = family(tmp_path / "inputs")
    before = hashes(tmp_path / "inputs")
    models = found.open()
    first = dict(directions(models, name))
    merge(models, name, folder=tmp_path / "merged")
    assert hashes(tmp_path / "inputs") == before
    # Nor is anything kept in memory that a second merge would start from.
    for tensor, direction in directions(models, name):
        assert torch.equal(direction, first[tensor]), tensor
        assert torch.equal(models.base.tensor(tensor), found.base[tensor]), tensor


@every_method
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_output_has_the_form_of_the_base(name: str, variant: str, tmp_path: Path) -> None:
    found = family(tmp_path, **VARIANTS[variant])
    merge(found.open(), name, folder=tmp_path / "merged")
    merged, base = Checkpoint(tmp_path / "merged"), Checkpoint(found.base_folder)
    assert {n: (i.dtype, i.shape) for n, i in merged.tensors.items()} == {n: (i.dtype, i.shape) for n, i in base.tensors.items()}
    for file in ("config.json", "tokenizer.json"):
        assert (merged.folder / file).read_bytes() == (base.folder / file).read_bytes()


@every_method
def test_files_and_shards_change_nothing(name: str, five: Family, tmp_path: Path) -> None:
    split = family(tmp_path / "split", shards=3)
    merge(five.open(), name, folder=tmp_path / "whole")
    merge(five.open(), name, folder=tmp_path / "again")
    merge(split.open(), name, folder=tmp_path / "parts", max_shard_bytes=400)
    whole, parts = Checkpoint(tmp_path / "whole"), Checkpoint(tmp_path / "parts")
    assert len(list(parts.folder.glob("*.safetensors"))) > 3
    assert list(hashes(tmp_path / "whole").values()) == list(hashes(tmp_path / "again").values())
    for tensor in whole.names:
        assert torch.equal(whole.tensor(tensor), parts.tensor(tensor)), tensor


@every_method
def test_merging_is_base_plus_scale_times_direction(name: str, five: Family, tmp_path: Path) -> None:
    method = get(name)
    scale = {"scale": 0.37} if method.scaled else {}
    merge(five.open(), name, scale, folder=tmp_path / "merged")
    merged = Checkpoint(tmp_path / "merged")
    for tensor, direction in directions(five.open(), name):
        expected = apply(five.base[tensor], direction, scale.get("scale", 1.0))
        assert torch.equal(merged.tensor(tensor), expected), tensor


@every_method
def test_what_is_out_of_scope_stays_and_counts_for_nothing(name: str, tmp_path: Path) -> None:
    found = family(tmp_path)
    merge(found.open(), name, folder=tmp_path / "first", scope="no-embeddings")
    # Other values in the embedding and the head must not move a threshold, a norm or a sign.
    for domain, folder in found.folders.items():
        tensors = {n: t * 9 if "embed" in n or "lm_head" in n else t for n, t in found.specialists[domain].items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    merge(found.open(), name, folder=tmp_path / "second", scope="no-embeddings")
    first, second = Checkpoint(tmp_path / "first"), Checkpoint(tmp_path / "second")
    for tensor in first.names:
        assert torch.equal(first.tensor(tensor), second.tensor(tensor)), tensor
        if "embed" in tensor or "lm_head" in tensor:
            assert torch.equal(first.tensor(tensor), found.base[tensor])


@with_density
def test_the_realised_density_is_the_requested_one(name: str, five: Family, tmp_path: Path) -> None:
    method = get(name)
    facts = merge(five.open(), name, {"density": 0.3}, folder=tmp_path / "merged")["realised"]
    # Thresholds are exact; a random mask over 452 entries is within four standard deviations.
    tolerance = 1 / facts["parameters"] if method.spectra else 4 * (0.3 * 0.7 / facts["parameters"]) ** 0.5
    assert set(facts["densities"]) == set(five.folders)
    assert all(abs(density - 0.3) <= tolerance for density in facts["densities"].values())


@every_method
def test_an_unchanged_tensor_stays_unchanged(name: str, five: Family) -> None:
    moved = dict(directions(five.open(), name))
    assert torch.count_nonzero(moved["model.layers.1.norm.weight"]) == 0
    assert moved["model.layers.0.gain"].shape == (1,)
    assert moved["model.layers.1.gain"].shape == ()


@with_statistics
def test_missing_statistics_are_named(name: str, five: Family) -> None:
    needed = get(name).statistics
    bare = Models.open(five.base_folder, five.folders)
    with pytest.raises(MergebenchError, match=f"{needed[0]} statistic of coding"):
        list(directions(bare, name))


@every_method
def test_declaration_is_complete(name: str) -> None:
    method = get(name)
    assert method.title
    assert method.reference.url.startswith("https://arxiv.org/abs/")
    assert (method.direction.__doc__ or "").strip()
    for parameter, values in method.grid.items():
        for value in values:
            method.validate({method.per_domain.get(parameter, parameter): value})
