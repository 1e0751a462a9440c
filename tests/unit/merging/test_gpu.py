"""The torch definitions on a GPU against the CPU, for every method."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergebench.merging.engine import directions
from mergebench.merging.registry import get, methods
from tests.reference.contexts import every_behaviour
from tests.reference.pico import family

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.mark.parametrize("name", list(methods()))
def test_a_gpu_gives_the_same(name: str, tmp_path: Path) -> None:
    """To rounding: sums over a tensor or the model have another order there, and solvers are other libraries."""
    found = family(tmp_path, n=3, width=210, dtype=torch.bfloat16)
    for values in every_behaviour(get(name)):
        there = dict(directions(found.open(), name, values, seed=3, device="cuda"))
        for tensor, direction in directions(found.open(), name, values, seed=3):
            torch.testing.assert_close(there[tensor], direction, rtol=1e-5, atol=1e-6)
