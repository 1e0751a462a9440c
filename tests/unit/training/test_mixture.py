"""The order of rows: proportions of the mixture, passes over the data, grouping by length."""

import random
from collections import Counter

from mergebench.training.mixture import example_order

LENGTHS = [[10] * 60, [20] * 30, [30] * 10]


def _domains(order):
    return Counter(0 if i < 60 else 1 if i < 90 else 2 for i in order)


def test_proportional_sees_every_row_once_per_pass():
    order = example_order(LENGTHS, batch_size=10, steps=20)
    assert sorted(order[:100]) == sorted(order[100:]) == list(range(100))
    assert order[:100] != order[100:]


def test_balanced_draws_equally_and_repeats_small_domains():
    order = example_order(LENGTHS, batch_size=6, steps=50, mixture="balanced")
    assert _domains(order) == {0: 100, 1: 100, 2: 100}
    assert all(_domains(order[i : i + 6]) == {0: 2, 1: 2, 2: 2} for i in range(0, 300, 6))
    repeats = Counter(i for i in order if i >= 90)
    assert set(repeats.values()) == {10}


def test_the_seed_alone_decides_the_order():
    assert example_order(LENGTHS, batch_size=8, steps=9, seed=3) == example_order(LENGTHS, batch_size=8, steps=9, seed=3)
    assert example_order(LENGTHS, batch_size=8, steps=9, seed=3) != example_order(LENGTHS, batch_size=8, steps=9, seed=4)


def test_grouping_by_length_keeps_the_rows_and_saves_padding():
    lengths = [random.Random(0).choices(range(5, 100), k=320)]
    plain = example_order(lengths, batch_size=8, steps=40)
    grouped = example_order(lengths, batch_size=8, steps=40, group_by_length=True)
    assert sorted(plain) == sorted(grouped)

    def padded(order):
        return sum(8 * max(lengths[0][i] for i in order[k : k + 8]) for k in range(0, len(order), 8))

    assert padded(grouped) < 0.75 * padded(plain)
