"""Random small models whose entries coincide and cancel often: thresholds, signs and overlaps must still be the formulas'."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergebench.merging.engine import merge
from mergebench.merging.models import Models
from mergebench.merging.registry import get
from tests.reference import naive
from tests.reference.pico import DOMAINS, write_checkpoint

# Multiples of a quarter: sums, differences and ties are the same in bfloat16, float32 and float64.
quarters = st.integers(-6, 6).map(lambda number: number / 4)
densities = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])


@st.composite
def models(draw) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]], int, int]:
    """A base, up to four specialists, and how many shards to read and how many bytes to write at most per shard."""
    layout = draw(st.lists(st.lists(st.integers(0, 4), max_size=2), min_size=1, max_size=4))
    count = draw(st.integers(1, 4))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))

    def tensors() -> dict[str, torch.Tensor]:
        found = {}
        for place, shape in enumerate(layout):
            size = int(np.prod(shape))
            values = draw(st.lists(quarters, min_size=size, max_size=size))
            found[f"layers.{place}.weight"] = torch.tensor(values).reshape(shape).to(dtype)
        return found

    return tensors(), [tensors() for _ in range(count)], draw(st.integers(1, len(layout))), draw(st.integers(1, 100))


def check(drawn: tuple, method: str, parameters: dict[str, Any], **arguments: Any) -> None:
    base, specialists, shards, shard_bytes = drawn
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder / "base", base, shards=shards)
        for domain, tensors in zip(DOMAINS, specialists, strict=False):
            write_checkpoint(folder / domain, tensors)
        opened = Models.open(folder / "base", {domain: folder / domain for domain in DOMAINS[: len(specialists)]})
        merge(opened, method, parameters, folder=folder / "out", dtype="float32", max_shard_bytes=shard_bytes)
        merged = Models.open(folder / "out", {"same": folder / "out"}).base
        expected = getattr(naive, method)(
            {n: t.double().numpy() for n, t in base.items()},
            [{n: t.double().numpy() for n, t in tensors.items()} for tensors in specialists],
            **arguments,
        )
        for tensor, value in expected.items():
            np.testing.assert_allclose(merged.tensor(tensor).double().numpy(), value, rtol=1e-6, atol=1e-6, err_msg=tensor)


quick = settings(max_examples=40, deadline=None)


@quick
@given(drawn=models(), scale=quarters)
def test_task_arithmetic(drawn: tuple, scale: float) -> None:
    check(drawn, "task_arithmetic", {"scale": scale}, scale=scale)


@quick
@given(
    drawn=models(),
    density=densities,
    aggregate=st.sampled_from(["mean", "sum", "max"]),
    zero_sign=st.sampled_from(["majority", "positive", "drop"]),
)
def test_ties(drawn: tuple, density: float, aggregate: str, zero_sign: str) -> None:
    parameters = {"density": density, "scale": 0.5, "aggregate": aggregate, "zero_sign": zero_sign}
    check(drawn, "ties", parameters, **parameters)


@quick
@given(drawn=models(), density=densities)
def test_dataless_localize_and_stitch(drawn: tuple, density: float) -> None:
    check(drawn, "dataless_localize_and_stitch", {"density": density}, density=density)


@quick
@given(drawn=models(), threshold=st.sampled_from([0.0, 0.25, 0.5, 1.0]), agreement=st.integers(1, 4))
def test_consensus(drawn: tuple, threshold: float, agreement: int) -> None:
    count = len(drawn[1])
    parameters = {"thresholds": threshold, "agreement": agreement, "scale": 0.5}
    check(drawn, "consensus_ta", parameters, thresholds=[threshold] * count, agreement=min(agreement, count), scale=0.5)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_the_scale_has_a_default(method: str) -> None:
    assert get(method).scaled
    assert get(method).validate()["scale"] > 0
