"""Properties of single methods that their formulas alone do not show."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mergebench.errors import MergebenchError
from mergebench.merging import counter
from mergebench.merging.engine import directions
from mergebench.merging.methods.consensus_ta import consensus_ta
from mergebench.merging.methods.dare import dare
from mergebench.merging.methods.dataless_localize_and_stitch import dataless_localize_and_stitch
from mergebench.merging.methods.fisher import fisher
from mergebench.merging.methods.model_soup import model_soup
from mergebench.merging.methods.regmean import regmean
from mergebench.merging.methods.task_arithmetic import task_arithmetic
from mergebench.merging.methods.ties import ties
from mergebench.merging.plan import Recipe, plan
from tests.reference.contexts import given_layer, given_vectors
from tests.reference.pico import family


def test_dare_at_full_density_is_task_arithmetic() -> None:
    context = given_vectors([1.0, -2.0, 3.0], [0.5, 0.5, 0.5])
    assert torch.equal(dare(context, density=1.0), task_arithmetic(context))


def test_dare_keeps_the_expected_value() -> None:
    context = given_vectors([1.0] * 20_000)
    direction = dare(context, density=0.1)
    assert set(direction.unique().tolist()) == {0.0, 10.0}
    assert direction.mean() == pytest.approx(1.0, abs=0.1)


def test_dare_draws_by_name_and_not_by_order(tmp_path) -> None:
    models = family(tmp_path).open()
    whole = dict(directions(models, "dare", {"density": 0.5}, seed=1))
    part = dict(directions(models, "dare", {"density": 0.5}, seed=1, scope=r"regex:layers\.1"))
    assert part
    assert all(torch.equal(direction, whole[name]) for name, direction in part.items())
    other = dict(directions(models, "dare", {"density": 0.5}, seed=2))
    assert any(not torch.equal(direction, whole[name]) for name, direction in other.items())


def test_dare_masks_are_the_counter_s() -> None:
    context = given_vectors([1.0] * 50, [1.0] * 50)
    masks = [counter.keep(counter.key(0, domain, "w"), 50, 0.3) for domain in "ab"]
    expected = torch.tensor(sum(mask.astype(float) for mask in masks) / 0.3, dtype=torch.float32)
    torch.testing.assert_close(dare(context, density=0.3), expected)


def test_ties_elects_signs_and_merges_what_agrees() -> None:
    context = given_vectors([3.0, -1.0, 2.0, 0.0], [-1.0, -3.0, 0.0, 0.0], [1.0, 2.0, -1.0, 0.0])
    assert ties(context).tolist() == [2.0, -2.0, 2.0, 0.0]
    assert ties(context, aggregate="sum").tolist() == [4.0, -4.0, 2.0, 0.0]
    assert ties(context, aggregate="max").tolist() == [3.0, -3.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("zero_sign", "total", "expected"),
    [("majority", -3.0, -1.0), ("majority", 3.0, 1.0), ("majority", 0.0, 0.0), ("positive", -3.0, 1.0), ("drop", -3.0, 0.0)],
)
def test_ties_where_signs_cancel(zero_sign: str, total: float, expected: float) -> None:
    context = given_vectors([1.0], [-1.0], totals=(np.float64(total),))
    assert ties(context, zero_sign=zero_sign).tolist() == [expected]


def test_ties_at_full_density_with_one_model_is_task_arithmetic() -> None:
    context = given_vectors([1.0, 0.0, -2.5])
    assert torch.equal(ties(context, density=1.0), task_arithmetic(context))


def test_the_official_threshold_that_is_zero_would_keep_everything() -> None:
    """Zeros are never selected: a task that did not move an entry must not halve another's."""
    context = given_vectors([1.0, 0.0], [0.0, 4.0])
    assert dataless_localize_and_stitch(context, density=1.0).tolist() == [1.0, 4.0]


def test_stitching_divides_by_the_overlap() -> None:
    context = given_vectors([1.0, 2.0, 5.0], [3.0, 0.0, 5.0], [5.0, 0.0, 5.0])
    assert dataless_localize_and_stitch(context).tolist() == [3.0, 2.0, 5.0]


def test_consensus_needs_two_tasks() -> None:
    context = given_vectors([4.0, 4.0, 0.0], [4.0, 0.1, 0.0], [0.1, 0.1, 0.0])
    total = task_arithmetic(context)
    assert consensus_ta(context, thresholds=0.5).tolist() == [float(total[0]), 0.0, 0.0]
    assert consensus_ta(context, thresholds=0.5, agreement=1).tolist() == [float(total[0]), float(total[1]), 0.0]
    assert consensus_ta(context, thresholds={"b": 0.5}, only="b").tolist() == [float(total[0]), 0.0, 0.0]


def test_consensus_names_the_domain_without_a_threshold() -> None:
    context = given_vectors([1.0], [1.0])
    with pytest.raises(MergebenchError, match="no value for b; it has a"):
        consensus_ta(context, thresholds={"a": 0.5})
    with pytest.raises(MergebenchError, match="only is 'z'; the specialists are a, b"):
        consensus_ta(context, thresholds=0.5, only="z")


def test_fisher_ignores_the_size_of_a_domain_s_gradients(tmp_path) -> None:
    found = family(tmp_path, n=2)
    models = found.open()
    first = dict(directions(models, "fisher"))
    grown = found.open()
    find = grown.statistic
    factor = {"instruction": 1000.0, "math": 1.0}
    grown.statistic = lambda kind, domain, name: find(kind, domain, name) * factor[domain]  # type: ignore[method-assign]
    for name, direction in directions(grown, "fisher"):
        torch.testing.assert_close(direction, first[name], rtol=1e-5, atol=1e-7)
    assert any(not torch.allclose(d, first[n], rtol=1e-3) for n, d in directions(grown, "fisher", {"normalise": False}))


def test_fisher_of_insensitive_parameters_is_the_average() -> None:
    context = given_vectors([2.0, 2.0], [4.0, 4.0], find=lambda kind, domain, name: torch.tensor([0.0, 1e-12]))
    assert fisher(context, normalise=False).tolist() == [3.0, 3.0]


def test_a_statistic_of_another_shape_is_refused() -> None:
    context = given_vectors([2.0, 2.0], find=lambda kind, domain, name: torch.ones(3))
    with pytest.raises(MergebenchError, match=r"fisher statistic of a for 'w' is of shape \[3\], expected \[2\]"):
        fisher(context)


def objective(direction: torch.Tensor, vectors: torch.Tensor, inputs: list[torch.Tensor]) -> float:
    """sum_t |X_t (tau - tau_t)^T|^2: what RegMean minimises."""
    return sum(float(((direction - tau).double() @ x.T.double()).square().sum()) for tau, x in zip(vectors, inputs, strict=True))


def test_regmean_minimises_its_objective() -> None:
    random = torch.Generator().manual_seed(0)
    inputs = [torch.randn(200, 12, generator=random) @ torch.randn(12, 12, generator=random) for _ in range(3)]
    vectors = torch.randn(3, 5, 12, generator=random)
    layer = given_layer(vectors, [x.T @ x for x in inputs])
    best = objective(regmean(layer, reduction=1.0), vectors, inputs)
    for other in (vectors.mean(0), regmean(layer, reduction=0.9), regmean(layer, reduction=0.0), regmean(layer, precision="bfloat16")):
        assert best < objective(other, vectors, inputs)
    nudged = regmean(layer, reduction=1.0) + 1e-3 * torch.randn(5, 12, generator=random)
    assert best < objective(nudged, vectors, inputs)


def test_regmean_averages_what_no_input_reaches() -> None:
    gram = torch.diag(torch.tensor([1.0, 0.0]))
    layer = given_layer(torch.tensor([[[1.0, 1.0]], [[5.0, 5.0]]]), [gram, 3 * gram])
    torch.testing.assert_close(regmean(layer, reduction=1.0), torch.tensor([[4.0, 3.0]]), rtol=1e-5, atol=1e-5)


def test_regmean_averages_parameters_without_a_gram() -> None:
    assert regmean(given_layer(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))).tolist() == [2.0, 4.0]


def test_weights_count_in_sums_and_means() -> None:
    context = given_vectors([1.0, -4.0], [2.0, 8.0])
    weights = {"a": 3.0, "b": 1.0}
    assert task_arithmetic(context, weights=weights).tolist() == [5.0, -4.0]
    assert task_arithmetic(context, weights=weights, normalise=True).tolist() == [1.25, -1.0]
    assert model_soup(context, weights=weights).tolist() == [1.25, -1.0]
    assert ties(context, weights=weights).tolist() == [1.25, -4.0]
    assert ties(context, weights=weights, aggregate="max").tolist() == [3.0, -12.0]
    assert dare(context, density=1.0, weights=weights, elect_signs=True).tolist() == [5.0, -12.0]
    assert dare(context, density=1.0, weights=weights, elect_signs=True, normalise=True).tolist() == [1.25, -4.0]


def test_a_weight_for_every_domain_is_needed() -> None:
    context = given_vectors([1.0], [2.0])
    with pytest.raises(MergebenchError, match=r"task_arithmetic\.weights has no value for b; it has a"):
        task_arithmetic(context, weights={"a": 1.0})
    with pytest.raises(MergebenchError, match="weights of model_soup add up to 0"):
        model_soup(context, weights={"a": 1.0, "b": -1.0})


def test_dare_rescales_to_the_sum_of_magnitudes() -> None:
    values = torch.linspace(-1, 2, 101).tolist()
    kept = dare(given_vectors(values), density=0.3, rescale="none")
    sums = np.array([[np.abs(values).sum(), float(kept.abs().sum())]])
    rescaled = dare(given_vectors(values, tensor_total=sums), density=0.3, rescale="l1")
    assert float(rescaled.abs().sum()) == pytest.approx(sums[0, 0], rel=1e-5)
    torch.testing.assert_close(rescaled / sums[0, 0] * sums[0, 1], kept)


def test_released_overlaps_count_the_last_other_task_alone() -> None:
    """Three tasks that all select an entry are halved, not divided by three; two whose last other task does not select it are added."""
    context = given_vectors([6.0, 6.0], [6.0, 6.0], [6.0, 0.0])
    assert dataless_localize_and_stitch(context).tolist() == [6.0, 6.0]
    assert dataless_localize_and_stitch(context, overlap="last").tolist() == [9.0, 12.0]


def test_fisher_weights_can_be_raised_instead_of_clamped() -> None:
    context = given_vectors([2.0], [4.0], find=lambda kind, domain, name: torch.tensor([0.0 if domain == "a" else 1.0]))
    assert fisher(context, normalise=False, floor=1.0).tolist() == [3.0]
    assert fisher(context, normalise=False, floor=1.0, smoothing="add").tolist() == pytest.approx([10 / 3])


def test_fisher_weights_count_by_their_ratio() -> None:
    context = given_vectors([2.0, 8.0], [4.0, 2.0], find=lambda kind, domain, name: torch.tensor([1.0, 3.0 if domain == "a" else 1.0]))
    assert fisher(context, normalise=False, weights={"a": 3.0, "b": 1.0}).tolist() == pytest.approx([2.5, 7.4])
    assert fisher(context, normalise=False, weights=7.0).tolist() == fisher(context, normalise=False).tolist()
    with pytest.raises(MergebenchError, match=r"fisher\.weights has no value for b; it has a"):
        fisher(context, weights={"a": 1.0})


def test_polluted_grid_points_are_never_one_direction(tmp_path) -> None:
    """They ask for no thresholds, so that equal ones cannot stand for equal candidates."""
    models = family(tmp_path, n=2).open()
    recipes = [Recipe("dataless_localize_and_stitch", {"density": density, "pollution": True}) for density in (0.1, 0.5)]
    assert len(plan(models, recipes).directions) == 2
    clean = [Recipe("dataless_localize_and_stitch", {"density": density}) for density in (0.99, 1.0)]
    assert len(plan(models, clean).directions) == 1
