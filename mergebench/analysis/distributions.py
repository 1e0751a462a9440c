"""Tails and quantiles of the distributions that the tests of the tables need; scipy is the reference in the unit tests.

Scipy itself is no dependency of the package, and five functions are no reason to make it one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_PRECISION = 1e-14
_TERMS = 10_000
_NORMAL_FROM = 1e6  # degrees of freedom; the tails then differ by less than 1 % as far out as nine deviations


def normal_two_sided(z: float) -> float:
    """Probability that a standard normal variable is at least |z| away from zero."""
    return math.erfc(abs(z) / math.sqrt(2))


def student_two_sided(t: float, df: float) -> float:
    """Probability that a variable with Student's t distribution of `df` degrees of freedom is at least |t| away from zero."""
    return f_tail(t * t, 1, df) if df < _NORMAL_FROM else normal_two_sided(t)


def chi_square_tail(x: float, df: int) -> float:
    """Probability that a chi-square variable with `df` degrees of freedom exceeds `x`.

    The recurrence Q(a + 1, y) = Q(a, y) + y^a e^-y / Gamma(a + 1), with y = x / 2, from Q(1/2, y) = erfc(sqrt y) or Q(1, y) = e^-y.
    """
    y = max(x, 0.0) / 2
    if y == 0:
        return 1.0
    a = 0.5 if df % 2 else 1.0
    tail = math.erfc(math.sqrt(y)) if df % 2 else math.exp(-y)
    while a < df / 2:
        tail += math.exp(a * math.log(y) - y - math.lgamma(a + 1))
        a += 1
    return min(tail, 1.0)


def f_tail(x: float, df1: float, df2: float) -> float:
    """Probability that an F variable with (df1, df2) degrees of freedom exceeds `x`."""
    if x <= 0:
        return 1.0
    return _incomplete_beta(df2 / (df2 + df1 * x), df2 / 2, df1 / 2)


def f_quantile(tail: float, df1: int, df2: int) -> float:
    """The value that an F variable exceeds with probability `tail`."""
    return _root(lambda x: f_tail(x, df1, df2) - tail)


def range_quantile(tail: float, groups: int) -> float:
    """The value that the range of `groups` standard normal variables (studentised range, infinite df) exceeds with probability `tail`.

    P(range <= q) = k * integral of phi(z) * (Phi(z) - Phi(z - q))^(k - 1) dz, by the trapezoidal rule, which converges
    exponentially for such integrands.
    """
    z = np.linspace(-9, 9, 2001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    below = _normal_cdf(z)

    def excess(q: float) -> float:
        return tail - (1 - groups * float(np.trapezoid(density * (below - _normal_cdf(z - q)) ** (groups - 1), z)))

    return _root(lambda q: -excess(q))


def _normal_cdf(z: np.ndarray) -> np.ndarray:
    return np.array([math.erfc(-each / math.sqrt(2)) / 2 for each in z])


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b), by its continued fraction (Numerical Recipes, section 6.4)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny = 1e-300
    c, d = 1.0, 1 / max(1 - (a + b) * x / (a + 1), tiny)
    total = d
    for m in range(1, _TERMS):
        for numerator in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):
            d = 1 / _not_zero(1 + numerator * d, tiny)
            c = _not_zero(1 + numerator / c, tiny)
            total *= c * d
        if abs(c * d - 1) < _PRECISION:
            break
    return front * total


def _not_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny


def _root(falling: Callable[[float], float]) -> float:
    """Where a function that falls from above zero to below it on the positive numbers is zero, by bisection."""
    low, high = 0.0, 1.0
    while falling(high) > 0:
        low, high = high, 2 * high
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2
