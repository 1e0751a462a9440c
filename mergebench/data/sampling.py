"""Seeded choices that depend on a row's content and not on its place, so that they survive added rows."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeVar

from mergebench.data.records import Row, same_text
from mergebench.errors import MergebenchError

AnyRow = TypeVar("AnyRow", bound=Row)

# The field by which a limited sample is spread, for datasets that have several kinds of rows.
STRATA = {
    "math": "subject",
    "m_mmlu": "language",
    "m_arc": "language",
    "m_hellaswag": "language",
    "pud_prose": "language",
    "wildguardtest": "adversarial",
    "harmbench": "functional_category",
    "do_anything_now": "source",
    "xstest": "type",
    "mmlu": "subject",
    "mmlu_stem": "subject",
    "squadv2": "title",
    "pubmedqa": "answer",
}


def fraction(key: str) -> float:
    """A number in [0, 1) that depends on the key alone, uniform over keys."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64


def sample(dataset: str, rows: Sequence[Row], size: int, seed: int) -> list[Row]:
    """A seeded sample of `size` rows, spread evenly over the dataset's strata, in the order of `rows`.

    Rows are taken in turn from each stratum (a language, a subject, ...), so that a small sample covers as
    many strata as it can. A smaller sample is part of a larger one of the same seed.
    """
    if size < 1:
        raise MergebenchError(f"{dataset}: the limit is {size}; expected at least 1, or null for all rows.")
    strata: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        strata[str(row.get(STRATA.get(dataset, "")))].append(index)

    def rank(index: int) -> float:
        return fraction(f"{seed}:{dataset}:{rows[index]['id']}")

    turns = [(turn, name) for name, members in strata.items() for turn in range(len(members))]
    turns.sort(key=lambda t: (t[0], fraction(f"{seed}:{dataset}:{t[1]}")))
    ranked = {name: sorted(members, key=rank) for name, members in strata.items()}
    return [rows[index] for index in sorted(ranked[name][turn] for turn, name in turns[:size])]


def distinct(rows: Sequence[AnyRow], key: Callable[[AnyRow], str]) -> list[AnyRow]:
    """The rows without those whose key an earlier row has."""
    seen: set[str] = set()
    kept = []
    for row in rows:
        identity = key(row)
        if identity not in seen:
            seen.add(identity)
            kept.append(row)
    return kept


def split_calibration(rows: Sequence[Row], size: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Split training rows into (train, calibration) without a prompt in common.

    Whole prompts are drawn by a seeded hash of their text until `size` rows are found; all other rows of a
    drawn prompt leave the training rows too. Both parts keep the order of `rows`.
    """
    ranks = {prompt: fraction(f"{seed}:calibration:{prompt}") for prompt in {same_text(row["prompt"]) for row in rows}}
    order = sorted(range(len(rows)), key=lambda i: (ranks[same_text(rows[i]["prompt"])], i))
    chosen = sorted(order[:size])
    drawn = {same_text(rows[i]["prompt"]) for i in chosen}
    train = [row for row in rows if same_text(row["prompt"]) not in drawn]
    return train, [rows[i] for i in chosen]
