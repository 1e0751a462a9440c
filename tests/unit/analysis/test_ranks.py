"""Friedman's test and Nemenyi's critical difference against scipy and the paper's tables."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mergebench.analysis.published import OVERALL, published_table
from mergebench.analysis.ranks import friedman


def table(seed: int, bases: int, methods: int, levels: int = 1000) -> pd.DataFrame:
    """Random values; few levels make ties."""
    values = np.random.default_rng(seed).integers(0, levels, (bases, methods))
    return pd.DataFrame(values.astype(float), columns=[f"method_{number}" for number in range(methods)])


@pytest.mark.parametrize(("bases", "methods", "levels"), [(2, 3, 1000), (8, 9, 1000), (8, 9, 4), (30, 4, 3)])
def test_chi_square_is_scipys_with_and_without_ties(bases: int, methods: int, levels: int) -> None:
    values = table(1, bases, methods, levels)
    expected = stats.friedmanchisquare(*[values[name] for name in values])
    found = friedman(values)
    assert found.chi_square == pytest.approx(expected.statistic)
    assert found.chi_square_p == pytest.approx(expected.pvalue)


def test_table_7_differs_over_the_bases_and_table_8_does_not() -> None:
    performance, retention = (friedman(published_table(number).drop(OVERALL)) for number in (7, 8))
    assert (round(performance.chi_square, 2), round(performance.f, 2), round(performance.f_critical, 2)) == (25.23, 4.55, 2.11)
    assert (round(retention.chi_square, 2), round(retention.f, 2)) == (13.19, 1.82)
    assert performance.significant
    assert not retention.significant
    assert round(performance.critical_difference, 2) == 4.25


def test_mean_ranks_of_table_7() -> None:
    ranks = friedman(published_table(7).drop(OVERALL)).mean_ranks
    assert ranks.to_dict() == {
        "localize_and_stitch": 2.625,
        "dataless_localize_and_stitch": 2.9375,
        "regmean": 4.25,
        "consensus_ta": 4.5,
        "task_arithmetic": 4.6875,
        "ties": 4.875,
        "model_soup": 6.75,
        "dare": 6.9375,
        "fisher": 7.4375,
    }


def test_mean_ranks_of_table_8() -> None:
    ranks = friedman(published_table(8).drop(OVERALL)).mean_ranks
    assert ranks.to_dict() == {
        "ties": 3.0,
        "model_soup": 3.5625,
        "regmean": 4.4375,
        "dataless_localize_and_stitch": 4.75,
        "consensus_ta": 4.8125,
        "fisher": 5.6875,
        "localize_and_stitch": 5.6875,
        "task_arithmetic": 6.25,
        "dare": 6.8125,
    }


def test_bars_join_exactly_the_methods_that_are_not_separated() -> None:
    found = friedman(published_table(7).drop(OVERALL))
    joined = {frozenset((one, other)) for clique in found.cliques() for one in clique for other in clique if one != other}
    methods = list(found.mean_ranks.index)
    for number, one in enumerate(methods):
        for other in methods[number + 1 :]:
            assert (frozenset((one, other)) in joined) != found.separated(one, other)


def test_a_base_that_lacks_a_method_is_left_out() -> None:
    values = table(2, 6, 4)
    gap = values.copy()
    gap.iloc[3, 1] = math.nan
    assert friedman(gap).mean_ranks.to_dict() == friedman(values.drop(index=3)).mean_ranks.to_dict()


@pytest.mark.parametrize(("bases", "methods"), [(1, 5), (5, 1), (0, 3)])
def test_too_little_to_compare_is_no_result(bases: int, methods: int) -> None:
    found = friedman(table(3, bases, methods))
    assert math.isnan(found.critical_difference)
    assert not found.significant
    assert found.cliques() == []


def test_bases_that_all_agree_are_significant_and_those_that_all_tie_are_not() -> None:
    agreeing = pd.DataFrame([[3.0, 2.0, 1.0]] * 5)
    assert friedman(agreeing).significant
    assert not friedman(agreeing * 0).significant
