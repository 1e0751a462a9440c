"""How far two judges agree about the same answers."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergebench.errors import MergebenchError
from mergebench.evaluation.safety.labels import Label, read_labels

PARTS = {"request": "harmful_request", "refusal": "refused", "harm": "harmful"}

Pair = tuple[Label, Label]


@dataclass(frozen=True)
class Agreement:
    """Of one part of the labels.

    Attributes:
        part: request, refusal or harm.
        n: answers that both judges labelled readably; "not applicable" is a label.
        agreement: share of equal labels.
        kappa: Cohen's kappa, which is 0 for the agreement that chance gives and 1 for full agreement; None where both judges
            always say the same one thing.
        unreadable: answers left out because one of the judges could not be read.
    """

    part: str
    n: int
    agreement: float
    kappa: float | None
    unreadable: int


def compare(first: Path, second: Path) -> list[Agreement]:
    """The agreement of the labels in two files, or in the files of equal names below two folders.

    Raises:
        MergebenchError: the files label different answers, nothing is in both folders, or the judges label no part in common.
    """
    pairs: list[Pair] = []
    shared: set[str] = set(PARTS)
    for one, other in _files(first, second):
        labels, judge = read_labels(one)
        others, opposite = read_labels(other)
        if labels.keys() != others.keys():
            raise MergebenchError(f"{one} and {other} label different answers; compare two judges of the same ones.")
        shared &= _reads(judge) & _reads(opposite)
        pairs += [(labels[key], others[key]) for key in labels]
    if not shared:
        raise MergebenchError(f"the judges of {first} and {second} label nothing in common: one labels refusals alone and the other harm.")
    readable = [pair for pair in pairs if not any(label.parse_error for label in pair)]
    if not readable:
        raise MergebenchError(f"{first} and {second} have no answer that both judges labelled readably.")
    return [_agreement(part, readable, len(pairs) - len(readable)) for part in PARTS if part in shared]


def _reads(judge: dict[str, Any]) -> set[str]:
    return set(judge["reads"])


def _files(first: Path, second: Path) -> Iterator[tuple[Path, Path]]:
    if not first.is_dir() and not second.is_dir():
        yield first, second
        return
    names = sorted(path.relative_to(first) for path in first.rglob("*.parquet") if (second / path.relative_to(first)).is_file())
    if not names:
        raise MergebenchError(f"no file of labels is both below {first} and below {second}; give two files, or two folders of labels.")
    yield from ((first / name, second / name) for name in names)


def _agreement(part: str, pairs: list[Pair], unreadable: int) -> Agreement:
    values = [(getattr(one, PARTS[part]), getattr(other, PARTS[part])) for one, other in pairs]
    n = len(values)
    observed = sum(one is other for one, other in values) / n
    first, second = Counter(one for one, _ in values), Counter(other for _, other in values)
    chance = sum(first[value] * second[value] for value in first) / n**2
    return Agreement(part, n, observed, None if chance == 1 else (observed - chance) / (1 - chance), unreadable)
