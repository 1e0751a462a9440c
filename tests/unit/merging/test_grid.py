"""One pass for many candidates: the same directions as alone, each computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mergebench.merging.engine import directions, grid, merge, merge_many
from mergebench.merging.models import Models
from mergebench.merging.plan import Recipe, plan
from mergebench.merging.registry import get, methods
from tests.reference.pico import Family, family, write_checkpoint
from tests.unit.merging.engines import set_pieces, weights

METHODS = [name for name in methods() if get(name).scope != "layer"]


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return family(tmp_path_factory.mktemp("five"), dtype=torch.bfloat16)


def recipes() -> list[Recipe]:
    """Two recipes of each method, and two scales where there is one."""
    found = []
    for name in METHODS:
        method = get(name)
        for density in (0.2, 0.6) if "density" in method.parameters else (None,):
            for scale in (0.3, 1.0) if method.scaled else (None,):
                given = {"density": density, "scale": scale}
                found.append(Recipe(name, {key: value for key, value in given.items() if value is not None}, seed=5))
    return found


@pytest.mark.parametrize("threads", [1, 4])
def test_a_grid_gives_the_directions_that_single_merges_use(five: Family, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_pieces(monkeypatch, 8, 16)
    gathered: dict[tuple[int, str], np.ndarray] = {}
    models = five.open()

    def consume(piece) -> None:
        for number, values in piece.directions.items():
            whole = gathered.setdefault((number, piece.name), np.zeros(models.size(piece.name), np.float32))
            whole[piece.offset : piece.offset + values.size] = values

    asked = recipes()
    planned, reports = grid(models, asked, consume, threads=threads)
    assert len(planned.directions) == len({(r.method, r.parameters.get("density")) for r in asked})
    for recipe, (number, scale) in zip(asked, planned.members, strict=True):
        assert scale == recipe.parameters.get("scale", 1.0)
        for name, direction in directions(five.open(), recipe.method, recipe.parameters, seed=5):
            assert np.array_equal(gathered[number, name], direction.numpy().ravel()), (recipe, name)
    assert all(report.record()["parameters"] == 452 for report in reports)


def test_many_outputs_of_one_walk_are_those_of_many(five: Family, tmp_path: Path) -> None:
    asked = recipes()
    together = merge_many(five.open(), [(recipe, tmp_path / f"t{place}") for place, recipe in enumerate(asked)], threads=2)
    for place, recipe in enumerate(asked):
        alone = merge(five.open(), recipe.method, recipe.parameters, folder=tmp_path / f"a{place}", seed=5)
        assert alone == together[place]
        assert weights(tmp_path / f"a{place}") == weights(tmp_path / f"t{place}")


def test_densities_that_keep_the_same_entries_are_one_direction(tmp_path: Path) -> None:
    """Differences of bfloat16 weights take few values: here a tenth, a fifth and a third all end within the largest one."""
    vector = torch.tensor([2.0] * 40 + [1.0] * 60)
    write_checkpoint(tmp_path / "base", {"w": torch.zeros(100)})
    write_checkpoint(tmp_path / "math", {"w": vector})
    models = Models.open(tmp_path / "base", {"math": tmp_path / "math"})
    asked = [Recipe("ties", {"density": density, "scale": scale}) for density in (0.1, 0.2, 0.33, 0.5) for scale in (0.5, 1.0)]
    planned = plan(models, asked)
    assert [number for number, _ in planned.members] == [0, 0, 0, 0, 0, 0, 1, 1]
    exact = plan(models, [Recipe("ties", {"density": density, "ties": "exact"}) for density in (0.1, 0.2)])
    assert len(exact.directions) == 2
    # A random mask depends on its density in another way.
    assert len(plan(models, [Recipe("dare", {"density": density}) for density in (0.1, 0.2)]).directions) == 2
