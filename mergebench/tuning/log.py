"""The search log: one line per evaluation, kept as the search goes so that it can be taken up again, and its tables.

A line of ``search.jsonl`` is a JSON object: a candidate with one seed, scored on one block of the surrogates' items (or on all
of them), with the outcome of every item. Lines are appended whole, so a kill loses the evaluation that it interrupts and no other.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

COLUMNS = {
    "candidate": "int64",
    "stage": "object",
    "parameters": "object",
    "seed": "int64",
    "surrogate": "object",
    "domain": "object",
    "block": "Int64",
    "value": "float64",
    "n": "int64",
    "reference": "float64",
    "normalised": "float64",
    "seconds": "float64",
    "weights": "object",
    "alias_of": "Int64",
}
OUTCOME_COLUMNS = {
    "candidate": "int64",
    "seed": "int64",
    "surrogate": "object",
    "block": "Int64",
    "item": "object",
    "group": "object",
    "outcome": "float64",
    "counts": "object",
}


class Key(NamedTuple):
    """What one evaluation is of.

    Attributes:
        candidate: its number in the order of the grid.
        seed: of the method's random numbers.
        block: number of the block of items; None where the surrogates are scored whole.
    """

    candidate: int
    seed: int
    block: int | None


@dataclass(frozen=True)
class Evaluation:
    """A candidate's scores on some items.

    Attributes:
        candidate, seed, block: see `Key`.
        stage: of the candidate: "domain" or "grid".
        parameters: its recipe.
        weights: digest of the weights that were scored.
        alias_of: the first candidate with these weights, whose scores these are; None for scores of its own.
        seconds: wall seconds by what they were spent on: ``direction``, ``install``, ``score``.
        scores: a record per surrogate: ``surrogate``, ``domain``, ``value`` in [0, 1], ``n``, ``reference``, ``normalised``,
            ``seconds`` and ``items``, columns of the same length: ``item`` (id), ``group``, ``outcome`` and, for corpus
            metrics, ``counts``.
    """

    candidate: int
    seed: int
    block: int | None
    stage: str
    parameters: dict[str, Any]
    weights: str
    alias_of: int | None
    seconds: dict[str, float]
    scores: list[dict[str, Any]]

    @property
    def key(self) -> Key:
        """What it is of."""
        return Key(self.candidate, self.seed, self.block)

    @property
    def total_seconds(self) -> float:
        """Wall seconds of everything that was done for it."""
        return sum(self.seconds.values())

    def rows(self) -> list[dict[str, Any]]:
        """A row per surrogate, in `COLUMNS`."""
        shared = {
            "candidate": self.candidate,
            "stage": self.stage,
            "parameters": json.dumps(self.parameters, sort_keys=True),
            "seed": self.seed,
            "block": self.block,
            "weights": self.weights,
            "alias_of": self.alias_of,
        }
        return [{**shared, **{name: score[name] for name in COLUMNS if name in score}} for score in self.scores]


class SearchLog:
    """Evaluations appended to a JSON Lines file; a half-written last line, left by a kill, is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.evaluations: dict[Key, Evaluation] = {}
        self._of_weights: dict[tuple[str, int | None, tuple[str, ...]], Key] = {}
        complete = []
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []:
            if not line.endswith("\n"):
                break
            complete.append(line)
            self._keep(Evaluation(**json.loads(line)))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
        temporary.write_text("".join(complete), encoding="utf-8")
        os.replace(temporary, path)

    def get(self, key: Key) -> Evaluation | None:
        """The evaluation of this candidate, seed and block, if there is one."""
        return self.evaluations.get(key)

    def same_weights(self, weights: str, block: int | None, surrogates: Sequence[str]) -> Evaluation | None:
        """The first evaluation of these weights on this block of these surrogates; None if there is none."""
        key = self._of_weights.get((weights, block, tuple(surrogates)))
        return None if key is None else self.evaluations[key]

    def add(self, evaluation: Evaluation) -> None:
        """Append one evaluation."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(evaluation), separators=(",", ":")) + "\n")
        self._keep(evaluation)

    def _keep(self, evaluation: Evaluation) -> None:
        self.evaluations[evaluation.key] = evaluation
        if evaluation.alias_of is None:
            surrogates = tuple(score["surrogate"] for score in evaluation.scores)
            self._of_weights.setdefault((evaluation.weights, evaluation.block, surrogates), evaluation.key)


def write_search(evaluations: Iterable[Evaluation], path: Path) -> None:
    """Write a row per evaluation and surrogate as Parquet, candidates in the order of the grid; ``block`` is null for whole surrogates."""
    ordered = sorted(evaluations, key=lambda e: (e.candidate, e.seed, -1 if e.block is None else e.block))
    _write([row for evaluation in ordered for row in evaluation.rows()], COLUMNS, path)


def write_outcomes(evaluations: Iterable[Evaluation], path: Path) -> None:
    """Write a row per scored item as Parquet: of evaluations that are no alias, in blocks as they were scored.

    Aliases are left out (their outcomes are those of `alias_of`). ``counts`` are the statistics that a corpus metric sums.
    """
    rows = []
    for evaluation in evaluations:
        if evaluation.alias_of is not None:
            continue
        for score in evaluation.scores:
            items = score["items"]
            counts = items.get("counts") or [None] * len(items["item"])
            for item, group, outcome, count in zip(items["item"], items["group"], items["outcome"], counts, strict=True):
                rows.append(
                    {
                        "candidate": evaluation.candidate,
                        "seed": evaluation.seed,
                        "surrogate": score["surrogate"],
                        "block": evaluation.block,
                        "item": item,
                        "group": group,
                        "outcome": outcome,
                        "counts": count,
                    }
                )
    _write(rows, OUTCOME_COLUMNS, path)


def _write(rows: list[dict[str, Any]], columns: Mapping[str, str], path: Path) -> None:
    import pandas

    frame = pandas.DataFrame(rows, columns=list(columns)).astype(dict(columns))
    frame.to_parquet(path, index=False, compression="zstd")
