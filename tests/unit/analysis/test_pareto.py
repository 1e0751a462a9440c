"""The Pareto frontier: what dominates what, whatever the order and whoever else is there."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergebench.analysis.pareto import dominates, dominators, frontier
from mergebench.analysis.pareto_table import published_points

AXES = ["performance", "retention", "cheapness"]
POINTS = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=7)


def table(points: list[tuple[float, ...]]) -> pd.DataFrame:
    return pd.DataFrame(points, columns=AXES, index=[f"m{i}" for i in range(len(points))], dtype=float)


@settings(max_examples=60)
@given(POINTS)
def test_the_frontier_is_what_nobody_dominates(points: list[tuple[int, ...]]) -> None:
    beaten = {
        f"m{i}"
        for i, mine in enumerate(points)
        for other in points
        if all(a >= b for a, b in zip(other, mine, strict=True)) and other != mine
    }
    found = frontier(table(points))
    assert set(found) == {f"m{i}" for i in range(len(points))} - beaten
    assert found


@settings(max_examples=60)
@given(POINTS, st.randoms(use_true_random=False))
def test_order_does_not_matter(points: list[tuple[int, ...]], random) -> None:
    values = table(points)
    turned = values.sample(frac=1, random_state=random.randrange(2**32))
    assert set(frontier(turned)) == set(frontier(values))


@settings(max_examples=60)
@given(POINTS)
def test_a_dominated_method_changes_nothing(points: list[tuple[int, ...]]) -> None:
    worse = tuple(value - 1 for value in points[0])
    assert frontier(table([*points, worse])) == frontier(table(points))


@settings(max_examples=60)
@given(POINTS)
def test_an_equal_that_is_cheaper_dominates_and_is_not_dominated_by_it(points: list[tuple[int, ...]]) -> None:
    *same, cheapness = points[0]
    values = table([*points, (*same, cheapness + 1)])
    last = values.index[-1]
    assert dominates(values.to_numpy())[-1, 0]
    assert "m0" not in frontier(values)
    assert "m0" not in dominators(values)[last]


@settings(max_examples=60)
@given(POINTS)
def test_everyone_off_the_frontier_has_a_dominator_on_it(points: list[tuple[int, ...]]) -> None:
    values = table(points)
    best = frontier(values)
    for name, who in dominators(values).items():
        assert (not who) == (name in best)
        assert set(who) <= set(best)


def test_equals_are_both_on_it() -> None:
    assert frontier(table([(1, 1, 1), (1, 1, 1)])) == ["m0", "m1"]


def test_what_is_missing_is_neither_bad_nor_in_the_way() -> None:
    values = table([(1, 1, 1), (9, 9, math.nan)])
    assert frontier(values) == ["m0"]
    assert list(dominators(values)) == ["m0"]
    assert not dominates(values.to_numpy()).any()


def test_draws_are_judged_one_by_one() -> None:
    points = np.array([[[1, 5], [1, 5]], [[2, 3], [2, 3]]], dtype=float)
    assert dominates(points)[0, 1].tolist() == [False, True]
    assert dominates(points)[1, 0].tolist() == [True, False]


def test_the_papers_frontier_is_the_reference() -> None:
    """Of the means of Tables 7 and 8: TIES, Dataless L&S and L&S; Task Arithmetic and RegMean are dominated."""
    values = published_points()[["performance", "retention"]]
    assert set(frontier(values)) == {"ties", "dataless_localize_and_stitch", "localize_and_stitch"}
    assert dominators(values)["task_arithmetic"] == ["dataless_localize_and_stitch"]


@pytest.mark.parametrize("base", ["Llama-3.1-8B", "Gemma-2-2b-it"])
def test_a_base_of_the_paper_is_its_row(base: str) -> None:
    assert published_points(base).loc["ties", "performance"] in (81.4, 87.0)
