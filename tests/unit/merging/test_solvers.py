"""The regression behind RegMean: exactness, shared inputs, singular matrices, memory."""

from __future__ import annotations

import logging

import pytest
import torch

from mergebench.merging.solvers import factorise, regress, regress_released
from tests.reference.contexts import given_layer

REDUCTIONS = [0.1, 0.5, 0.9, 1.0]


def problem(n: int, width: int = 24, outputs: tuple[int, ...] = (7,), rows: int = 60, seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(rows, width, generator=random) @ torch.randn(width, width, generator=random) for _ in range(n)]
    vectors = [torch.randn(n, count, width, generator=random) for count in outputs]
    return [x.T @ x / rows for x in inputs], vectors


def exact(grams, vectors, reduction):
    scaled = [torch.where(torch.eye(len(g), dtype=torch.bool), g.double(), reduction * g.double()) for g in grams]
    right = sum(g @ tau.double().T for g, tau in zip(scaled, vectors, strict=True))
    return torch.linalg.solve(sum(scaled), right).T.float()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_layers_with_the_same_inputs_are_solved_together(n: int) -> None:
    grams, vectors = problem(n, outputs=(7, 3, 3))
    layers = [given_layer(each, grams) for each in vectors]
    for reduction, found in zip(REDUCTIONS, regress(grams, layers, REDUCTIONS), strict=True):
        for each, direction in zip(vectors, found, strict=True):
            expected = exact(grams, each, reduction) if n > 1 else each[0]
            torch.testing.assert_close(direction, expected, rtol=1e-5, atol=1e-6)


def test_factors_come_out_the_same_alone_and_together() -> None:
    grams, (vectors,) = problem(5)
    together = [found for (found,) in regress(grams, [given_layer(vectors)], REDUCTIONS)]
    for reduction, expected in zip(REDUCTIONS, together, strict=True):
        ((alone,),) = regress(grams, [given_layer(vectors)], [reduction])
        torch.testing.assert_close(alone, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rows", [0, 1, 6, 60])
def test_identical_specialists_are_returned(rows: int, caplog) -> None:
    grams, (vectors,) = problem(3, rows=max(rows, 1))
    grams = [gram * (rows > 0) for gram in grams]
    vectors = vectors[:1].expand(3, -1, -1).contiguous()
    with caplog.at_level(logging.WARNING):
        for (found,) in regress(grams, [given_layer(vectors)], REDUCTIONS):
            torch.testing.assert_close(found, vectors[0], rtol=1e-6, atol=1e-6)
    assert ("condition number" in caplog.text) == (0 < rows < 24)


def test_a_singular_matrix_is_named_with_its_condition(caplog) -> None:
    grams = [torch.diag(torch.tensor([1.0, 1e-12])), torch.diag(torch.tensor([3.0, 1e-12]))]
    layer = given_layer(torch.tensor([[[1.0, 1.0]], [[5.0, 5.0]]]), grams, name="model.layers.0.mlp.up_proj.weight")
    with caplog.at_level(logging.WARNING):
        ((found,),) = regress(grams, [layer], [1.0])
    torch.testing.assert_close(found, torch.tensor([[4.0, 3.0]]), rtol=1e-4, atol=1e-4)
    assert "mlp.up_proj.weight: the sum of its Gram matrices has a condition number of about 2.0e+12; a larger ridge" in caplog.text


def test_the_factor_is_written_over_the_matrix() -> None:
    (gram,), _ = problem(1)
    matrix = gram.double()
    address = matrix.data_ptr()
    factor, failed = factorise(matrix)
    assert not failed
    assert factor.data_ptr() == address
    torch.testing.assert_close(factor @ factor.T, gram.double(), rtol=1e-12, atol=1e-12)
    assert factorise(torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64))[1]


def test_the_released_chain_loses_what_float64_keeps() -> None:
    """Identical specialists on ill-conditioned inputs: the published formula returns them, the released arithmetic does not."""
    random = torch.Generator().manual_seed(3)
    mix = torch.randn(48, 48, generator=random) * torch.logspace(0, -2, 48)
    grams = [(x := torch.randn(200, 48, generator=random) @ mix).T @ x / 200 for _ in range(5)]
    vectors = (1e-3 * torch.randn(1, 16, 48, generator=random)).expand(5, -1, -1).contiguous()
    ((solved,),) = regress(grams, [given_layer(vectors)], [0.9])
    torch.testing.assert_close(solved, vectors[0], rtol=1e-6, atol=1e-9)
    released = regress_released(grams, given_layer(vectors), 0.9)
    assert (released - vectors[0]).norm() > 0.02 * vectors[0].norm()


def objective(found, vectors, grams, reduction) -> float:
    """sum_t |X_t (T - tau_t)^T|^2 with off-diagonal entries of X_t^T X_t multiplied by the reduction factor, in float64."""
    total = 0.0
    for gram, vector in zip(grams, vectors, strict=True):
        reduced = torch.where(torch.eye(len(gram), dtype=torch.bool), gram.double(), reduction * gram.double())
        rest = found.double() - vector.double()
        total += float(((rest @ reduced) * rest).sum())
    return total


SPREAD = {
    "plain": torch.ones(24),
    "massive": torch.cat([torch.full((2,), 1000.0), torch.ones(22)]),  # as a few features of real models are
    "decaying": torch.logspace(0, -5, 24),
    "dead": torch.cat([torch.zeros(4), torch.ones(20)]),
}


@pytest.mark.parametrize("spread", SPREAD)
@pytest.mark.parametrize("rows", [3, 12, 400])
@pytest.mark.parametrize("reduction", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_objective_is_never_worse_than_the_average_s(reduction: float, rows: int, spread: str) -> None:
    """Also where specialists see few inputs, inputs of very different sizes, or none of some."""
    for seed in range(5):
        random = torch.Generator().manual_seed(seed)
        mix = torch.randn(24, 24, generator=random) * SPREAD[spread]
        inputs = [torch.randn(rows, 24, generator=random) @ mix for _ in range(3)]
        grams = [x.T @ x / rows for x in inputs]
        vectors = 1e-2 * torch.randn(3, 5, 24, generator=random)
        ((found,),) = regress(grams, [given_layer(vectors)], [reduction])
        solved, averaged = (objective(each, vectors, grams, reduction) for each in (found, vectors.mean(0)))
        assert solved <= averaged * (1 + 1e-6)
