"""Seeded samples and splits: stable, spread, and disjoint."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergebench.data.records import Row, same_text
from mergebench.data.sampling import STRATA, distinct, fraction, sample, split_calibration
from mergebench.data.schema import SCHEMAS
from mergebench.errors import MergebenchError


def arc(counts: dict[str, int]) -> list[Row]:
    return [{"id": f"{language}/{i}", "language": language} for language, n in counts.items() for i in range(n)]


def ids(rows: list[Row]) -> list[str]:
    return [row["id"] for row in rows]


def test_strata_are_fields_of_the_schema() -> None:
    assert all(field in SCHEMAS[dataset] for dataset, field in STRATA.items())


def test_a_sample_covers_every_language_evenly() -> None:
    chosen = sample("m_arc", arc({"fr": 100, "es": 10, "de": 2, "ru": 50}), 20, seed=0)
    counts = {language: sum(row["language"] == language for row in chosen) for language in ("fr", "es", "de", "ru")}
    assert counts == {"fr": 6, "es": 6, "de": 2, "ru": 6}


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
def test_a_smaller_sample_is_part_of_a_larger_one(small: int, large: int, seed: int) -> None:
    rows = arc({"fr": 20, "es": 9, "de": 3})
    first, second = sample("m_arc", rows, min(small, large), seed), sample("m_arc", rows, max(small, large), seed)
    assert set(ids(first)) <= set(ids(second))
    assert ids(second) == [i for i in ids(rows) if i in set(ids(second))]
    assert len(second) == min(max(small, large), len(rows))


def test_a_sample_depends_on_the_seed_and_not_on_the_order_of_rows() -> None:
    rows = arc({"fr": 50})
    assert set(ids(sample("m_arc", rows, 10, 1))) == set(ids(sample("m_arc", rows[::-1], 10, 1)))
    assert ids(sample("m_arc", rows, 10, 1)) != ids(sample("m_arc", rows, 10, 2))


def test_more_strata_than_rows_asked_for_gives_one_row_of_each_chosen() -> None:
    chosen = sample("mmlu", [{"id": f"{s}/{i}", "subject": f"s{s}"} for s in range(57) for i in range(5)], 20, seed=0)
    assert len({row["subject"] for row in chosen}) == 20


@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_sample_is_refused(size: int) -> None:
    with pytest.raises(MergebenchError, match=f"the limit is {size}; expected at least 1"):
        sample("m_arc", arc({"fr": 3}), size, seed=0)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), min_size=1, max_size=40), st.integers(0, 10), st.integers(0, 3))
def test_calibration_shares_no_prompt_with_training(pairs: list[tuple[int, int]], size: int, seed: int) -> None:
    rows = [{"id": str(i), "prompt": f"{'Ask' if r % 2 else 'ask '} {p}", "response": str(r)} for i, (p, r) in enumerate(pairs)]
    train, calibration = split_calibration(rows, size, seed)
    assert len(calibration) == min(size, len(rows))
    assert not {same_text(r["prompt"]) for r in train} & {same_text(r["prompt"]) for r in calibration}


def test_added_rows_do_not_move_the_others_between_the_parts() -> None:
    rows = [{"id": str(i), "prompt": f"p{i}", "response": "r"} for i in range(100)]
    before = set(ids(split_calibration(rows[:90], 9, 0)[1]))
    after = set(ids(split_calibration(rows, 9, 0)[1]))
    assert len(before & after) >= 6


def test_distinct_keeps_the_first_of_equals() -> None:
    assert distinct([{"id": 1, "p": "a"}, {"id": 2, "p": "b"}, {"id": 3, "p": "a"}], lambda r: r["p"]) == [
        {"id": 1, "p": "a"},
        {"id": 2, "p": "b"},
    ]


def test_fractions_are_spread_over_the_unit_interval() -> None:
    values = [fraction(str(i)) for i in range(2000)]
    assert all(0 <= v < 1 for v in values)
    assert abs(sum(values) / 2000 - 0.5) < 0.03
