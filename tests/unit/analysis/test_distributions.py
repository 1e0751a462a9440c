"""Tails and quantiles against scipy's."""

import math

import pytest
from scipy import stats

from mergebench.analysis.distributions import chi_square_tail, f_quantile, f_tail, normal_two_sided, range_quantile, student_two_sided


@pytest.mark.parametrize("z", [0.0, 0.5, -1.96, 4.0, 30.0])
def test_normal(z: float) -> None:
    assert normal_two_sided(z) == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-12)


@pytest.mark.parametrize("df", [1, 2, 7, 100, 99_999, 10**9, math.inf])
@pytest.mark.parametrize("t", [0.0, 0.3, -2.1, 9.0, math.inf])
def test_student(t: float, df: float) -> None:
    assert student_two_sided(t, df) == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-5, abs=1e-300)


@pytest.mark.parametrize("df", [1, 2, 3, 8, 19])
@pytest.mark.parametrize("x", [0.0, 0.01, 1.5, 25.23, 90.0])
def test_chi_square(x: float, df: int) -> None:
    assert chi_square_tail(x, df) == pytest.approx(stats.chi2.sf(x, df), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("df", [(1, 7), (8, 8), (8, 56), (2, 1), (30, 300)])
@pytest.mark.parametrize("x", [0.001, 0.9, 2.11, 40.0])
def test_f(x: float, df: tuple[int, int]) -> None:
    assert f_tail(x, *df) == pytest.approx(stats.f.sf(x, *df), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("df", [(1, 7), (8, 8), (8, 56)])
def test_f_quantile(df: tuple[int, int]) -> None:
    assert f_quantile(0.05, *df) == pytest.approx(stats.f.isf(0.05, *df), rel=1e-8)


@pytest.mark.parametrize("groups", [2, 3, 9, 20])
def test_studentised_range(groups: int) -> None:
    assert range_quantile(0.05, groups) == pytest.approx(stats.studentized_range.isf(0.05, groups, math.inf), rel=1e-6)


def test_f_of_nothing_is_certain() -> None:
    assert f_tail(0.0, 3, 4) == 1.0
