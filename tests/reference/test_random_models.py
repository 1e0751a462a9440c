"""Random small models whose entries coincide and cancel often: thresholds, signs and overlaps must still be the formulas'.

Architectures have the names of Llama and Gemma 2, tied and untied heads, biases, tensors without entries and with one; base and specialists
differ in dtype and in how they are cut into files.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mergebench.checkpoints.reader import Checkpoint
from mergebench.merging.engine import merge, merge_many
from mergebench.merging.models import Models
from mergebench.merging.plan import Recipe
from tests.reference import naive
from tests.reference.pico import DOMAINS, write_checkpoint

# Multiples of a quarter: sums, differences and ties are the same in bfloat16, float16, float32 and float64.
quarters = st.integers(-6, 6).map(lambda number: number / 4)
densities = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])

NORMS = {
    "llama": ("input_layernorm", "post_attention_layernorm"),
    "gemma2": ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
}


class Drawn(NamedTuple):
    """A base and its specialists in files, and how the merged model is cut."""

    base: dict[str, torch.Tensor]
    specialists: list[dict[str, torch.Tensor]]
    shards: list[int]
    shard_bytes: int


def shapes(family: str, layers: int, width: int, vocabulary: int, bias: bool, tied: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a decoder of the family; `width` may be 0 or 1."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width), "model.norm.weight": (width,)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for name, outputs in (("q", 2), ("k", 1), ("v", 1), ("o", 1)):
            found[f"{prefix}.self_attn.{name}_proj.weight"] = (outputs * width, width)
            if bias and name != "o":
                found[f"{prefix}.self_attn.{name}_proj.bias"] = (outputs * width,)
        found[f"{prefix}.mlp.gate_proj.weight"] = found[f"{prefix}.mlp.up_proj.weight"] = (width + 1, width)
        found[f"{prefix}.mlp.down_proj.weight"] = (width, width + 1)
        found |= {f"{prefix}.{norm}.weight": (width,) for norm in NORMS[family]}
    if not tied:
        found["lm_head.weight"] = (vocabulary, width)
    return found


@st.composite
def models(draw: st.DrawFn) -> Drawn:
    """Up to four specialists of a random decoder."""
    layout = shapes(
        draw(st.sampled_from(["llama", "gemma2"])),
        layers=draw(st.integers(1, 2)),
        width=draw(st.integers(0, 3)),
        vocabulary=draw(st.integers(1, 3)),
        bias=draw(st.booleans()),
        tied=draw(st.booleans()),
    )
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    zero = draw(st.sampled_from([0.0, 0.3, 0.9]))

    def tensors(near: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
        """Quarters; a share of a specialist's entries is the base's."""
        found, dtype = {}, draw(dtypes)
        for name, shape in layout.items():
            values = torch.from_numpy(random.integers(-6, 7, size=shape) / 4)
            if near:
                values = torch.where(torch.from_numpy(random.random(shape) < zero), near[name].double(), values)
            found[name] = values.to(dtype)
        return found

    base = tensors(None)
    count = draw(st.integers(1, 4))
    shards = [draw(st.integers(1, 3)) for _ in range(count + 1)]
    return Drawn(base, [tensors(base) for _ in range(count)], shards, draw(st.sampled_from([1, 30, 200, 10**6])))


def written(drawn: Drawn, folder: Path) -> Models:
    write_checkpoint(folder / "base", drawn.base, shards=drawn.shards[0])
    folders = {domain: folder / domain for domain in DOMAINS[: len(drawn.specialists)]}
    for (path, tensors), shards in zip(zip(folders.values(), drawn.specialists, strict=True), drawn.shards[1:], strict=True):
        write_checkpoint(path, tensors, shards=shards)
    return Models.open(folder / "base", folders)


def check(drawn: Drawn, method: str, parameters: dict[str, Any], **arguments: Any) -> None:
    """The merged model is the formula's, and a model that can be opened."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        merge(written(drawn, folder), method, parameters, folder=folder / "out", dtype="float32", max_shard_bytes=drawn.shard_bytes)
        merged = Checkpoint(folder / "out")
        expected = getattr(naive, method)(
            {n: t.double().numpy() for n, t in drawn.base.items()},
            [{n: t.double().numpy() for n, t in tensors.items()} for tensors in drawn.specialists],
            **arguments,
        )
        assert merged.tensors.keys() == expected.keys()
        for tensor, value in expected.items():
            np.testing.assert_allclose(merged.tensor(tensor).double().numpy(), value, rtol=1e-6, atol=1e-6, err_msg=tensor)


def sizes(drawn: Drawn) -> list[int]:
    return [drawn.base[name].numel() for name in sorted(drawn.base)]


quick = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
rules = {
    "density": densities,
    "ties": st.sampled_from(["all", "strict", "exact"]),
    "count": st.sampled_from(["nearest", "floor", "floor_or_one", "above"]),
}


@quick
@given(drawn=models(), scale=quarters, normalise=st.booleans())
def test_task_arithmetic(drawn: Drawn, scale: float, normalise: bool) -> None:
    check(drawn, "task_arithmetic", {"scale": scale, "normalise": normalise}, scale=scale, normalise=normalise)


@quick
@given(
    drawn=models(),
    rule=st.fixed_dictionaries(rules),
    among=st.sampled_from(["global", "tensor"]),
    aggregate=st.sampled_from(["mean", "sum", "max"]),
    zero_sign=st.sampled_from(["majority", "positive", "drop"]),
)
def test_ties(drawn: Drawn, rule: dict[str, Any], among: str, aggregate: str, zero_sign: str) -> None:
    parameters = {**rule, "scale": 0.5, "aggregate": aggregate, "zero_sign": zero_sign}
    arguments = parameters | ({"sizes": sizes(drawn)} if among == "tensor" else {})
    check(drawn, "ties", {**parameters, "threshold_scope": among}, **arguments)


@quick
@given(drawn=models(), rule=st.fixed_dictionaries(rules), among=st.sampled_from(["global", "tensor"]))
def test_dataless_localize_and_stitch(drawn: Drawn, rule: dict[str, Any], among: str) -> None:
    arguments = rule | ({"sizes": sizes(drawn)} if among == "tensor" else {})
    check(drawn, "dataless_localize_and_stitch", {**rule, "threshold_scope": among}, **arguments)


@quick
@given(drawn=models(), threshold=st.sampled_from([0.0, 0.25, 0.5, 1.0]), agreement=st.integers(1, 4))
def test_consensus(drawn: Drawn, threshold: float, agreement: int) -> None:
    count = len(drawn.specialists)
    parameters = {"thresholds": threshold, "agreement": agreement, "scale": 0.5}
    check(drawn, "consensus_ta", parameters, thresholds=[threshold] * count, agreement=min(agreement, count), scale=0.5)


@quick
@given(
    drawn=models(),
    points=st.lists(
        st.one_of(
            st.builds(lambda scale: Recipe("task_arithmetic", {"scale": scale}), quarters),
            st.builds(lambda rule, scale: Recipe("ties", {**rule, "scale": scale}), st.fixed_dictionaries(rules), quarters),
            st.builds(lambda rule: Recipe("dataless_localize_and_stitch", rule), st.fixed_dictionaries(rules)),
            st.builds(lambda density: Recipe("dare", {"density": density, "scale": 0.5}, seed=1), st.sampled_from([0.1, 0.5, 1.0])),
            st.builds(lambda only: Recipe("consensus_ta", {"only": only, "thresholds": 0.25}), st.sampled_from([None, DOMAINS[0]])),
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_a_grid_is_its_points(drawn: Drawn, points: list[Recipe]) -> None:
    """Several recipes from one walk give the bytes that each gives alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        opened = written(drawn, folder)
        options = {"max_shard_bytes": drawn.shard_bytes}
        merge_many(opened, [(recipe, folder / f"grid{number}") for number, recipe in enumerate(points)], **options)
        for number, recipe in enumerate(points):
            merge(opened, recipe.method, recipe.parameters, seed=recipe.seed, folder=folder / f"one{number}", **options)
            for path in (folder / f"one{number}").iterdir():
                assert path.read_bytes() == (folder / f"grid{number}" / path.name).read_bytes()
