"""The order in which training rows enter the steps: shuffled, mixed over domains, grouped by length.

The whole order is drawn before training from one seed, so it depends neither on a library's sampler nor on
where a run was interrupted.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice, pairwise

from mergebench.training.settings import Mixture

WINDOW = 16  # batches among which rows are sorted by length


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
        mixture: ``proportional`` passes over the concatenation again and again, each time in a new order;
            ``balanced`` draws the same number from every domain (any ``len(lengths)`` draws in a row hold each
            domain once), so that small domains repeat more often.
        group_by_length: batch rows of similar length (among `WINDOW` batches), which saves padding.
    """
    rng = random.Random(seed)
    offsets = [0, *accumulate(len(domain) for domain in lengths)]
    total = steps * batch_size
    if mixture == "balanced":
        pools = [_cycle(range(start, end), rng) for start, end in pairwise(offsets)]
        turns = _cycle(range(len(lengths)), rng)
        order = [next(pools[next(turns)]) for _ in range(total)]
    else:
        order = list(islice(_cycle(range(offsets[-1]), rng), total))
    if group_by_length:
        order = _grouped(order, [length for domain in lengths for length in domain], batch_size, rng)
    return order


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
