"""Properties of single methods that their formulas alone do not show."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mergebench.errors import MergebenchError
from mergebench.merging import counter
from mergebench.merging.context import Tensors
from mergebench.merging.engine import directions
from mergebench.merging.methods.consensus_ta import consensus_ta
from mergebench.merging.methods.dare import dare
from mergebench.merging.methods.dataless_localize_and_stitch import dataless_localize_and_stitch
from mergebench.merging.methods.fisher import fisher
from mergebench.merging.methods.regmean import regmean
from mergebench.merging.methods.task_arithmetic import task_arithmetic
from mergebench.merging.methods.ties import ties
from tests.reference.pico import family


def given_vectors(*vectors: list, **options) -> Tensors:
    """One parameter with these task vectors; thresholds keep every nonzero entry."""
    stacked = torch.tensor(vectors, dtype=torch.float32)
    domains = tuple("abcdefg"[: len(vectors)])
    threshold = options.pop("threshold", lambda domain, density, rule: (0.0, True))
    return Tensors("w", torch.zeros(stacked.shape[1:]), stacked, domains, threshold=threshold, **options)


def grams(*matrices: torch.Tensor):
    return {"find": lambda kind, domain, name: matrices["abcdefg".index(domain)]}


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
    context = given_vectors([1.0], [-1.0], total=torch.tensor(total))
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


def objective(direction: torch.Tensor, context: Tensors, inputs: list[torch.Tensor]) -> float:
    """sum_t |X_t (tau - tau_t)^T|^2: what RegMean minimises."""
    return sum(float(((direction - tau).double() @ x.T.double()).square().sum()) for tau, x in zip(context.vectors, inputs, strict=True))


def test_regmean_minimises_its_objective() -> None:
    random = torch.Generator().manual_seed(0)
    inputs = [torch.randn(200, 12, generator=random) @ torch.randn(12, 12, generator=random) for _ in range(3)]
    vectors = torch.randn(3, 5, 12, generator=random)
    context = replace(given_vectors([0.0], [0.0], [0.0], **grams(*[x.T @ x for x in inputs])), base=vectors[0] * 0, vectors=vectors)
    best = objective(regmean(context, reduction=1.0), context, inputs)
    for other in (vectors.mean(0), regmean(context, reduction=0.9), regmean(context, reduction=0.0)):
        assert best < objective(other, context, inputs)
    nudged = regmean(context, reduction=1.0) + 1e-3 * torch.randn(5, 12, generator=random)
    assert best < objective(nudged, context, inputs)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_regmean_with_a_singular_gram_returns_identical_specialists(rank: int) -> None:
    random = torch.Generator().manual_seed(1)
    vector = torch.randn(5, 12, generator=random)
    inputs = [torch.randn(rank, 12, generator=random) for _ in range(2)]
    context = replace(
        given_vectors([0.0], [0.0], **grams(*[x.T @ x for x in inputs])), base=vector * 0, vectors=torch.stack([vector, vector])
    )
    torch.testing.assert_close(regmean(context, reduction=1.0), vector, rtol=1e-6, atol=1e-6)


def test_regmean_averages_what_no_input_reaches() -> None:
    gram = torch.diag(torch.tensor([1.0, 0.0]))
    context = replace(
        given_vectors([0.0], [0.0], **grams(gram, 3 * gram)),
        base=torch.zeros(1, 2),
        vectors=torch.tensor([[[1.0, 1.0]], [[5.0, 5.0]]]),
    )
    torch.testing.assert_close(regmean(context, reduction=1.0), torch.tensor([[4.0, 3.0]]), rtol=1e-5, atol=1e-5)


def test_regmean_averages_parameters_without_a_gram() -> None:
    context = given_vectors([1.0, 2.0], [3.0, 6.0], find=lambda kind, domain, name: None)
    assert regmean(context).tolist() == [2.0, 4.0]
