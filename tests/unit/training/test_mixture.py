"""The order of rows: proportions of the mixture, passes over the data, grouping by length."""

import random
from collections import Counter

import pytest

from mergebench.training.mixture import apportioned, checked, epoch_rows, example_order

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


SIZES = [60, 30, 10]


@pytest.mark.parametrize(
    ("mixture", "rows"),
    [
        ("proportional", [60, 30, 10]),
        ("balanced", [34, 33, 33]),
        ("capped(25)", [25, 25, 10]),
        ("capped(1000)", [60, 30, 10]),
        ("temperature(1)", [60, 30, 10]),
        ("temperature(2)", [47, 34, 19]),  # sqrt: 7.746, 5.477, 3.162 of 16.385
        ("temperature(1000000)", [34, 33, 33]),
    ],
)
def test_an_epoch_has_the_stated_shares(mixture, rows):
    assert epoch_rows(SIZES, mixture) == rows


@pytest.mark.parametrize("mixture", ["proportional", "capped(25)", "temperature(2)", "temperature(3.5)"])
def test_every_epoch_holds_exactly_its_share_of_each_domain(mixture):
    epoch = epoch_rows(SIZES, mixture)
    order = example_order(LENGTHS, batch_size=sum(epoch), steps=5, mixture=mixture)
    for start in range(0, len(order), sum(epoch)):
        assert _domains(order[start : start + sum(epoch)]) == dict(enumerate(epoch))


def test_a_run_of_part_of_an_epoch_has_the_same_shares():
    order = example_order(LENGTHS, batch_size=8, steps=5, mixture="temperature(2)")
    assert _domains(order) == {0: 19, 1: 13, 2: 8}  # 18.9, 13.4, 7.7 of 40


def test_a_capped_domain_shows_other_rows_in_each_epoch_until_all_were_seen():
    order = example_order(LENGTHS, batch_size=60, steps=3, mixture="capped(25)")
    drawn = [i for i in order if i < 60]
    assert len(drawn) == 75
    assert sorted(drawn[:60]) == list(range(60))


@pytest.mark.parametrize("sizes", [[590_000, 5_000, 1], [1, 1, 1], [100_000, 1, 1, 1, 1]])
@pytest.mark.parametrize("mixture", ["temperature(1)", "temperature(2)", "balanced", "capped(7)"])
def test_no_domain_is_lost(sizes, mixture):
    assert min(epoch_rows(sizes, mixture)) >= 1


@pytest.mark.parametrize("seed", range(4))
def test_shares_add_up_and_are_off_by_less_than_one(seed):
    rng = random.Random(seed)
    weights = [rng.randint(1, 1000) for _ in range(rng.randint(2, 9))]
    total = rng.randint(5000, 9000)
    shares = apportioned(weights, total)
    assert sum(shares) == total
    assert all(abs(share - total * weight / sum(weights)) < 1 or share == 1 for share, weight in zip(shares, weights, strict=True))


@pytest.mark.parametrize(
    "mixture", ["capped", "capped(0)", "capped(2.5)", "temperature(0.5)", "temperature(-1)", "temperature()", "even", ""]
)
def test_an_unknown_mixture_is_refused(mixture):
    with pytest.raises(ValueError, match="is unknown; allowed: proportional, balanced, capped"):
        checked(mixture)


@pytest.mark.parametrize("mixture", ["capped(40)", "temperature(2)"])
def test_the_order_of_a_mixture_depends_on_the_seed_alone(mixture):
    orders = [example_order(LENGTHS, batch_size=8, steps=9, mixture=mixture, seed=seed) for seed in (3, 3, 4)]
    assert orders[0] == orders[1] != orders[2]
