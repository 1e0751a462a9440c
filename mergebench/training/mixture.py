"""The order in which training rows enter the steps: shuffled, mixed over domains, grouped by length.

The whole order is drawn before training from one seed, so it depends neither on a library's sampler nor on
where a run was interrupted.
"""

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import accumulate, chain, islice, pairwise, repeat
from typing import Annotated

from pydantic import AfterValidator

WINDOW = 16  # batches among which rows are sorted by length
PLAIN = ("proportional", "balanced")


def checked(mixture: str) -> str:
    """`mixture` itself, if it is one of ``proportional``, ``balanced``, ``capped(N)`` and ``temperature(T)``."""
    if mixture in PLAIN:
        return mixture
    name, value = _parsed(mixture)
    if (name == "capped" and value >= 1 and value == int(value)) or (name == "temperature" and value >= 1):
        return mixture
    raise ValueError(
        f"mixture {mixture!r} is unknown; allowed: proportional, balanced, capped(N) with N rows at most of a domain, "
        "temperature(T) with T from 1 (proportional) upwards (balanced)"
    )


# How the domains share an epoch of the multitask model; the paper states none (a setting of ours).
Mixture = Annotated[str, AfterValidator(checked)]


def epoch_rows(sizes: Sequence[int], mixture: Mixture = "proportional") -> list[int]:
    """How many rows of each domain make one epoch.

    ``proportional``: all of them. ``capped(N)``: at most N of each. ``balanced`` and ``temperature(T)``: as many as
    there are in all, shared equally, or by ``size ** (1 / T)``; small domains repeat and large ones do not finish.
    Shares are rounded by largest remainder, and no domain gets none while there are rows for all.
    """
    weights = _weights(sizes, mixture)
    return apportioned(weights, int(sum(weights)) if mixture.startswith("capped") else sum(sizes))


def _weights(sizes: Sequence[int], mixture: str) -> list[float]:
    """What the domains' shares are proportional to."""
    if mixture == "proportional":
        return list(map(float, sizes))
    if mixture == "balanced":
        return [1.0] * len(sizes)
    name, value = _parsed(checked(mixture))
    return [min(size, value) if name == "capped" else size ** (1 / value) for size in sizes]


def apportioned(weights: Sequence[float], total: int) -> list[int]:
    """Whole numbers that add up to `total`, proportional to `weights` (Hamilton's largest remainders), ties to the first.

    Each is at least 1 where `total` allows it: what a share below one lacks is taken from the largest.
    """
    whole = sum(map(Fraction, weights))
    exact = [Fraction(weight) * total / whole for weight in weights]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: (shares[i] - exact[i], i))
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    while total >= len(shares) and 0 in shares:
        shares[shares.index(max(shares))] -= 1
        shares[shares.index(0)] += 1
    return shares


def example_order(
    lengths: Sequence[Sequence[int]],
    *,
    batch_size: int,
    steps: int,
    mixture: Mixture = "proportional",
    group_by_length: bool = False,
    seed: int = 0,
) -> list[int]:
    """Indices of the rows, ``steps * batch_size`` of them, into the concatenation of all domains' rows.

    Args:
        lengths: for each domain, the token count of each of its rows.
        mixture: ``proportional`` passes over the concatenation again and again, each time in a new order. ``balanced``
            draws the same number from every domain (any ``len(lengths)`` draws in a row hold each domain once), so
            that small domains repeat more often. ``capped(N)`` and ``temperature(T)`` give each domain its share
            (`epoch_rows`) of every epoch, and of the part of an epoch that a run ends with; a domain's rows are all
            drawn before one repeats.
        group_by_length: batch rows of similar length (among `WINDOW` batches), which saves padding.
    """
    rng = random.Random(seed)
    offsets = [0, *accumulate(len(domain) for domain in lengths)]
    total = steps * batch_size
    if mixture == "proportional":
        order = list(islice(_cycle(range(offsets[-1]), rng), total))
    else:
        pools = [_cycle(range(start, end), rng) for start, end in pairwise(offsets)]
        order = [next(pools[domain]) for domain in islice(_turns([len(domain) for domain in lengths], mixture, total, rng), total)]
    if group_by_length:
        order = _grouped(order, [length for domain in lengths for length in domain], batch_size, rng)
    return order


def _parsed(mixture: str) -> tuple[str, float]:
    found = re.fullmatch(r"(capped|temperature)\((\d+(?:\.\d+)?)\)", mixture)
    return (found[1], float(found[2])) if found else ("", 0.0)


def _turns(sizes: list[int], mixture: str, total: int, rng: random.Random) -> Iterator[int]:
    """Which domain the next row comes from."""
    if mixture == "balanced":
        yield from _cycle(range(len(sizes)), rng)
    weights, epoch = _weights(sizes, mixture), sum(epoch_rows(sizes, mixture))
    for start in range(0, total, epoch):
        shares = apportioned(weights, min(epoch, total - start))
        turns = list(chain.from_iterable(map(repeat, range(len(sizes)), shares)))
        rng.shuffle(turns)
        yield from turns


def _cycle(indices: Iterable[int], rng: random.Random) -> Iterator[int]:
    """Endless passes over `indices`, each in a new order."""
    pool = list(indices)
    while True:
        rng.shuffle(pool)
        yield from pool


def _grouped(order: list[int], lengths: list[int], batch_size: int, rng: random.Random) -> list[int]:
    grouped: list[int] = []
    for start in range(0, len(order), WINDOW * batch_size):
        window = sorted(order[start : start + WINDOW * batch_size], key=lambda index: lengths[index])
        batches = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
        rng.shuffle(batches)
        grouped += [index for batch in batches for index in batch]
    return grouped
