"""The paper's tables ship unchanged: their own means agree with what is printed."""

import pytest

from mergebench.analysis.published import OVERALL, published_table
from tests.unit.analysis.synthetic import METHODS


@pytest.mark.parametrize(("number", "tolerance"), [(7, 0.05), (8, 0.065)])
def test_overall_is_the_mean_over_the_bases(number: int, tolerance: float) -> None:
    table = published_table(number)
    off = (table.drop(OVERALL).mean() - table.loc[OVERALL]).abs()
    assert (off <= tolerance).all(), off


@pytest.mark.parametrize("number", [7, 8])
def test_every_base_and_method_of_the_paper_is_there(number: int) -> None:
    table = published_table(number)
    assert sorted(table.columns) == sorted(METHODS)
    assert len(table.drop(OVERALL)) == 8
    assert table.notna().all(axis=None)


def test_known_cells() -> None:
    assert published_table(7).loc["Gemma-2-9b-it", "consensus_ta"] == 106.5
    assert published_table(8).loc["Llama-3.1-8B-Instruct", "regmean"] == 71.9
