"""What holds for every method, present and future: a new file in `merging/methods/` is tested here by being there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.merging.block import Shared
from mergebench.merging.directions import Direction
from mergebench.merging.engine import apply, directions, merge, merge_many
from mergebench.merging.models import Models
from mergebench.merging.plan import Recipe, plan
from mergebench.merging.registry import Method, get, methods
from mergebench.merging.report import Facts
from mergebench.merging.statistics.store import save_statistics
from tests.reference.contexts import definition, every_behaviour, random_block
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
every_merge = pytest.mark.parametrize("name", [name for name in METHODS if not get(name).control])
elementwise = pytest.mark.parametrize("name", [name for name in METHODS if get(name).scope == "element"])
fused = pytest.mark.parametrize("name", [name for name in METHODS if get(name).kernel is not None])
with_density = pytest.mark.parametrize("name", [name for name in METHODS if "density" in get(name).parameters])
with_statistics = pytest.mark.parametrize("name", [name for name in METHODS if get(name).statistics])


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> Family:
    """Tensors of several blocks each, whose entries often coincide."""
    return family(tmp_path_factory.mktemp("long"), n=3, width=210, dtype=torch.bfloat16)


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
def test_the_seed_changes_what_declares_itself_random_and_nothing_else(name: str, five: Family) -> None:
    models = five.open()
    one, other = (dict(directions(models, name, seed=seed)) for seed in (0, 1))
    assert all(torch.equal(one[tensor], other[tensor]) for tensor in one) is not get(name).random


@every_merge
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


@every_merge
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


@elementwise
def test_pieces_change_nothing(name: str, long: Family) -> None:
    """What blocks of a tensor give is what the definition gives of the whole tensor."""
    method, models = get(name), long.open()
    for values in every_behaviour(method):
        planned = plan(models, [Recipe(name, values, seed=3)])
        found = dict(directions(models, name, values, seed=3))
        for tensor, direction in found.items():
            base = long.base[tensor].float().flatten()
            vectors = torch.stack([long.specialists[domain][tensor].float().flatten() - base for domain in models.domains])
            whole = Shared(tensor, 0, base.numpy(), vectors.numpy(), models.domains, planned.cuts, models.statistic_values)
            expected = definition(planned.directions[0], whole)
            assert torch.equal(direction.flatten(), expected), (tensor, values)


@every_method
def test_threads_change_nothing(name: str, long: Family, tmp_path: Path) -> None:
    for threads in (1, 3):
        merge(long.open(), name, seed=3, folder=tmp_path / str(threads), threads=threads)
    assert list(hashes(tmp_path / "1").values()) == list(hashes(tmp_path / "3").values())


@fused
@pytest.mark.parametrize("n", [1, 2, 5])
def test_kernel_and_definition_give_the_same_bits(name: str, n: int) -> None:
    for seed, values in enumerate(every_behaviour(get(name))):
        if values.get("only") and n == 1:
            continue
        shared = random_block(n, seed)
        direction, _ = Direction.of(name, values, seed=5)
        while (total := direction.total(shared)) is not None:
            direction.totals += (total,)
        direction.tensor_totals[shared.name] = direction.tensor_total(shared)
        before, facts = shared.vectors.copy(), Facts()
        out = np.full(shared.base.size, np.nan, np.float32)
        direction.block(shared, out, facts)
        assert direction.fused
        np.testing.assert_array_equal(shared.vectors.view(np.uint32), before.view(np.uint32))
        expected = definition(direction, shared, seen := Facts())
        np.testing.assert_array_equal(out.view(np.uint32), expected.numpy().view(np.uint32), err_msg=str(values))
        assert (facts.kept, facts.cancelled) == (seen.kept, seen.cancelled), values


@every_method
def test_one_walk_for_many_outputs_gives_each_of_them(name: str, five: Family, tmp_path: Path) -> None:
    """Grid output is single output: every behaviour of the method, and Task Arithmetic at two scales, in one walk."""
    recipes = [Recipe(name, values, seed=3) for values in every_behaviour(get(name))]
    recipes += [Recipe("task_arithmetic", {"scale": scale}) for scale in (0.3, 1.0)]
    together = merge_many(five.open(), [(recipe, tmp_path / "many" / str(number)) for number, recipe in enumerate(recipes)])
    for number, recipe in enumerate(recipes):
        alone = merge(five.open(), recipe.method, recipe.parameters, seed=recipe.seed, folder=tmp_path / "one" / str(number))
        assert {key: alone[key] for key in ("recipe", "realised_digest")} == {
            key: together[number][key] for key in ("recipe", "realised_digest")
        }
        assert list(hashes(tmp_path / "one" / str(number)).values()) == list(hashes(tmp_path / "many" / str(number)).values())


@every_method
def test_rows_that_the_base_lacks_change_nothing(name: str, five: Family, tmp_path: Path) -> None:
    """MergeBench/Llama-3.2-3B_math has 64 embedding rows more than its base."""
    wide = family(tmp_path / "wide")
    tensors = dict(wide.specialists["math"])
    for tensor in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[tensor] = torch.cat([tensors[tensor], torch.full((3, 6), 9.0)])
    save_file(tensors, wide.folders["math"] / "model.safetensors", metadata={"format": "pt"})
    expected = dict(directions(five.open(), name, seed=3))
    for tensor, direction in directions(wide.open(vocabulary="base"), name, seed=3):
        assert torch.equal(direction, expected[tensor]), tensor


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


@pytest.mark.parametrize("name", [name for name in METHODS if "exact" in getattr(get(name).parameters.get("ties"), "choices", ())])
@pytest.mark.parametrize("among", ["global", "tensor"])
def test_exactly_the_requested_number_is_kept(name: str, among: str, tmp_path: Path) -> None:
    """Task vectors of few distinct values, most of which tie."""
    found = family(tmp_path, n=2, dtype=torch.bfloat16)
    for density in (0.1, 0.3, 0.45):
        facts = merge(found.open(), name, {"density": density, "ties": "exact", "threshold_scope": among}, folder=tmp_path / f"{density}")[
            "realised"
        ]
        for domain, tensors in found.specialists.items():
            taus = {tensor: value.float() - found.base[tensor].float() for tensor, value in tensors.items()}
            parts = [torch.cat([tau.flatten() for tau in taus.values()])] if among == "global" else list(taus.values())
            wanted = sum(min(round(density * part.numel()), int(part.count_nonzero())) for part in parts)
            assert round(facts["densities"][domain] * facts["parameters"]) == wanted


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
