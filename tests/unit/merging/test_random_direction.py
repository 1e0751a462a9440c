"""The control of equal norm: as long as Model Soup's direction in every tensor, and in no particular direction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mergebench.analysis.distributions import normal_two_sided
from mergebench.checkpoints.reader import Checkpoint
from mergebench.merging import counter
from mergebench.merging.engine import directions, merge
from tests.reference.pico import Family, family

METHOD = "random_direction"


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Family:
    """Tensors of several blocks, in bfloat16; two specialists."""
    return family(tmp_path_factory.mktemp("wide"), n=2, width=210, dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def drawn(wide: Family) -> dict[str, torch.Tensor]:
    return dict(directions(wide.open(), METHOD, seed=3))


def norms(found: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(direction.double().norm()) for name, direction in found.items()}


def test_every_tensor_moves_as_far_as_the_soup_s(wide: Family, drawn: dict[str, torch.Tensor]) -> None:
    soup = norms(dict(directions(wide.open(), "model_soup")))
    assert sum(norm > 0 for norm in soup.values()) > 5
    assert norms(drawn) == pytest.approx(soup, rel=1e-6)


def test_the_merged_model_is_that_far_from_its_base(tmp_path: Path) -> None:
    found = family(tmp_path, dtype=torch.float32)
    for name in (METHOD, "model_soup"):
        merge(found.open(), name, folder=tmp_path / name)
    base = Checkpoint(found.base_folder)
    moved = [
        {tensor: (merged.tensor(tensor).double() - base.tensor(tensor).double()) for tensor in base.names}
        for merged in map(Checkpoint, (tmp_path / METHOD, tmp_path / "model_soup"))
    ]
    assert norms(moved[0]) == pytest.approx(norms(moved[1]), rel=1e-5, abs=1e-12)


def test_it_follows_no_task_vector(wide: Family, drawn: dict[str, torch.Tensor]) -> None:
    """Cosines of the whole direction with every task vector and with the soup's: within five standard deviations of zero."""
    models = wide.open()
    flat = torch.cat([drawn[name].double().flatten() for name in sorted(drawn)])
    others = {domain: {name: wide.specialists[domain][name] - wide.base[name] for name in drawn} for domain in models.domains}
    others["soup"] = dict(directions(models, "model_soup"))
    for other in others.values():
        vector = torch.cat([other[name].double().flatten() for name in sorted(drawn)])
        cosine = float(flat @ vector / flat.norm() / vector.norm())
        assert abs(cosine) < 5 * largest_share(drawn)


def largest_share(drawn: dict[str, torch.Tensor]) -> float:
    """An upper bound of the cosine's standard deviation: that of a direction in the tensor of the fewest entries that moves."""
    return max(float(d.norm()) / sum(float(o.norm()) ** 2 for o in drawn.values()) ** 0.5 / d.numel() ** 0.5 for d in drawn.values())


def test_seeds_are_unrelated(wide: Family, drawn: dict[str, torch.Tensor]) -> None:
    other = dict(directions(wide.open(), METHOD, seed=4))
    largest = max(drawn, key=lambda name: drawn[name].numel())
    one, two = drawn[largest].double().flatten(), other[largest].double().flatten()
    assert abs(float(one @ two / one.norm() / two.norm())) < 5 / one.numel() ** 0.5


def test_an_entry_depends_on_the_specialists_through_the_norm_alone(tmp_path: Path) -> None:
    one = dict(directions(family(tmp_path / "one").open(), METHOD, seed=1))
    other = dict(directions(family(tmp_path / "other", n=2, seed=5).open(), METHOD, seed=1))
    for name, direction in one.items():
        first, second = direction.double(), other[name].double()
        if first.norm() and second.norm():
            torch.testing.assert_close(first / first.norm(), second / second.norm(), rtol=1e-5, atol=1e-7)


def test_the_numbers_are_normal() -> None:
    """Moments, and the largest distance of the distribution function (Kolmogorov and Smirnov; 1.95 / sqrt(n) at 0.1 %)."""
    numbers = np.sort(counter.normal(counter.key(0, METHOD, "w"), 0, 200_000).astype(float))
    assert abs(numbers.mean()) < 0.01
    assert abs(numbers.var() - 1) < 0.02
    assert abs((numbers**4).mean() - 3) < 0.1
    ranks = np.arange(0, numbers.size, 500)
    expected = [normal_two_sided(abs(x)) / 2 if x < 0 else 1 - normal_two_sided(x) / 2 for x in numbers[ranks]]
    assert np.abs(np.array(expected) - ranks / numbers.size).max() < 1.95 / numbers.size**0.5


def test_the_table_is_symmetric_ascending_and_without_zero() -> None:
    table = counter.quantiles()
    assert (np.diff(table) > 0).all()
    np.testing.assert_array_equal(table, -table[::-1])
    assert (table != 0).all()
