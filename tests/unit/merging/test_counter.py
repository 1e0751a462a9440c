"""The counter-based generator behind DARE."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mergebench.merging import counter

keys = st.integers(0, 2**64 - 1)


@given(key=keys, start=st.integers(0, 10**9), count=st.integers(0, 50), cut=st.integers(0, 50))
def test_a_part_is_drawn_alone(key: int, start: int, count: int, cut: int) -> None:
    whole = counter.draw(key, start, count)
    cut = min(cut, count)
    np.testing.assert_array_equal(whole, np.concatenate([counter.draw(key, start, cut), counter.draw(key, start + cut, count - cut)]))


@given(key=keys, low=st.floats(0, 1), high=st.floats(0, 1))
def test_masks_nest_in_the_density(key: int, low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert not (counter.keep(key, 200, low) & ~counter.keep(key, 200, high)).any()


def test_the_ends_keep_nothing_and_all() -> None:
    assert not counter.keep(5, 10_000, 0.0).any()
    assert counter.keep(5, 10_000, 1.0).all()


def test_chunks_change_nothing(monkeypatch) -> None:
    whole = counter.keep(9, 5000, 0.3)
    monkeypatch.setattr(counter, "CHUNK", 700)
    np.testing.assert_array_equal(counter.keep(9, 5000, 0.3), whole)


def test_the_generator_is_splitmix64() -> None:
    """The first outputs of the published generator with state 1234567, their upper halves."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert counter.draw(1234567, 0, 5).tolist() == [value >> 32 for value in published]


def test_numbers_are_uniform_and_keys_are_independent() -> None:
    first, second = (counter.draw(counter.key(seed, "math", "a"), 0, 100_000) / 2**32 for seed in (0, 1))
    assert abs(first.mean() - 0.5) < 0.004
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.015
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.015
    counts = np.bincount((first * 64).astype(int), minlength=64)
    assert ((counts - 100_000 / 64) ** 2 / (100_000 / 64)).sum() < 120


def test_each_of_seed_domain_and_name_makes_another_key() -> None:
    found = {counter.key(s, d, n) for s in (0, 1) for d in ("math", "coding") for n in ("a", "b")}
    assert len(found) == 8
