"""Score a live model on the surrogates: on all items of them, or on one block of each.

Blocks serve racing. Which block an item belongs to follows from the seed and its id alone, so that all candidates of all methods
are compared on the same items. A surrogate's score on several blocks is computed from their items together, by the
surrogate's own aggregate: corpus BLEU is no mean of parts.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergebench.errors import MergebenchError
from mergebench.evaluation.aggregate import AGGREGATES, Item, Score
from mergebench.evaluation.harness import Suite
from mergebench.evaluation.local_tasks import EXAMPLES, load_task, read_rows
from mergebench.evaluation.safety import Judge
from mergebench.evaluation.scoring import Record
from mergebench.evaluation.settings import BenchmarkSetting

if TYPE_CHECKING:
    from lm_eval.api.model import LM

LOWEST_REFERENCE = 0.01
"""A surrogate on which its own specialist scores less is not divided by that score; its plain value counts."""

ADDITIVE = ("mean", "mean_over_groups", "corpus_bleu", "smoothed_bleu")
"""Aggregates that need of each item its group, its outcome and its counts alone, and can so be computed over several blocks."""


class Scorer:
    """The surrogates as tasks, built once and asked of every candidate.

    Args:
        settings: surrogate -> its settings, as in the spec of a job.
        rows: surrogate -> its ``rows.jsonl``.
        domain_of: surrogate -> its domain.
        references: surrogate -> the score of its domain's specialist.
        judges: judges with a model, by name.
        blocks: how many blocks the items of each surrogate are dealt to.
        seed: of the dealing.
        folder: where the rows of blocks are kept.

    Raises:
        MergebenchError: a surrogate cannot be scored in blocks, or has fewer rows than blocks.
    """

    def __init__(
        self,
        settings: Mapping[str, Mapping[str, Any]],
        rows: Mapping[str, Path],
        domain_of: Mapping[str, str],
        references: Mapping[str, float],
        *,
        judges: Mapping[str, Judge] | None = None,
        blocks: int = 1,
        seed: int = 0,
        folder: Path,
    ) -> None:
        self.settings = {name: BenchmarkSetting.parse(name, dict(settings[name])) for name in domain_of}
        self.domain_of, self.references = dict(domain_of), dict(references)
        self.judges, self.blocks = judges, blocks
        self._seed, self._folder = seed, folder
        self._rows = {name: rows[name] for name in domain_of if name in rows}
        self._suites: dict[tuple[tuple[str, ...], int | None], Suite] = {}
        self._aggregates = {name: self._aggregate_of(name) for name in domain_of} if blocks > 1 else {}

    def surrogates(self, domains: Iterable[str]) -> tuple[str, ...]:
        """The surrogates of these domains, in the order of the configuration."""
        wanted = set(domains)
        return tuple(name for name, domain in self.domain_of.items() if domain in wanted)

    def score(self, lm: "LM", domains: Sequence[str], block: int | None) -> list[dict[str, Any]]:
        """The model's scores on the surrogates of these domains; see `log.Evaluation.scores`.

        Args:
            lm: the model, with the weights of a candidate.
            domains: those on whose surrogates it is scored.
            block: of each surrogate; None for all items.
        """
        names = self.surrogates(domains)
        started = time.monotonic()
        records = self._suite(names, block).evaluate(lm)
        seconds = (time.monotonic() - started) / len(names)
        return [self._scored(name, records[name], seconds) for name in names]

    def together(self, parts: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Scores on several blocks as scores on all their items."""
        return together(parts, self._aggregates)

    def _scored(self, name: str, record: Record, seconds: float) -> dict[str, Any]:
        frame = record.items
        extras = [json.loads(extra) for extra in frame["extra"]]
        items: dict[str, list[Any]] = {
            "item": frame["item"].tolist(),
            "group": frame["group"].tolist(),
            "outcome": [None if outcome != outcome else float(outcome) for outcome in frame["outcome"]],  # NaN has no JSON
        }
        if all("counts" in extra for extra in extras):
            items["counts"] = [extra["counts"] for extra in extras]
        return {
            "surrogate": name,
            "domain": self.domain_of[name],
            **valued(record.value, int(record.summary["n"]), self.references[name]),
            "seconds": round(seconds, 3),
            "items": items,
        }

    def _aggregate_of(self, name: str) -> str:
        aggregate = aggregate_of(self.settings[name], self._rows[name])
        if aggregate not in ADDITIVE:
            raise MergebenchError(
                f"{name} is scored by {aggregate}, which cannot be added up over blocks of items; set tuning.search to grid or golden."
            )
        return aggregate

    def _suite(self, names: tuple[str, ...], block: int | None) -> Suite:
        if (names, block) not in self._suites:
            rows = self._rows if block is None else {name: self._block(name, block) for name in names}
            self._suites[names, block] = Suite([self.settings[name] for name in names], rows, judges=self.judges)
        return self._suites[names, block]

    def _block(self, name: str, block: int) -> Path:
        """The rows of a block as a file of their own, in the order of the whole file."""
        whole = self._rows[name]
        lines = {str(row["id"]): row for row in read_rows(whole)}
        if len(lines) < self.blocks:
            raise MergebenchError(
                f"{name} has {len(lines)} rows, fewer than tuning.halving.blocks, {self.blocks}; lower it, or give more rows."
            )
        chosen = dealt(list(lines), self.blocks, f"{self._seed}\0{name}")[block]
        path = self._folder / str(block) / name / "rows.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(lines[item]) + "\n" for item in chosen), encoding="utf-8")
        if (examples := whole.with_name(EXAMPLES)).is_file():
            path.with_name(EXAMPLES).write_bytes(examples.read_bytes())
        return path


def together(parts: Sequence[Sequence[dict[str, Any]]], aggregates: Mapping[str, str]) -> list[dict[str, Any]]:
    """Scores of the same surrogates on several blocks, as scores on all their items.

    Args:
        parts: of each block, scores as in `log.Evaluation.scores`.
        aggregates: surrogate -> name of its aggregate, one of `ADDITIVE`.
    """
    if len(parts) == 1:
        return [dict(score) for score in parts[0]]
    found = []
    for scores in zip(*parts, strict=True):
        columns = {key: [value for score in scores for value in score["items"][key]] for key in scores[0]["items"]}
        value = aggregated(columns, aggregates[scores[0]["surrogate"]])
        found.append(
            {
                **scores[0],
                **valued(value.value, value.n, scores[0]["reference"]),
                "seconds": round(sum(score["seconds"] for score in scores), 3),
                "items": columns,
            }
        )
    return found


def aggregate_of(setting: BenchmarkSetting, rows: Path) -> str:
    """How a surrogate's items become its score."""
    return str(load_task(setting, rows).config.metadata["aggregate"])


def valued(value: float, n: int, reference: float) -> dict[str, Any]:
    """A value with what it is divided by."""
    return {"value": value, "n": n, "reference": reference, "normalised": value / divisor(reference)}


def divisor(reference: float) -> float:
    """What scores are divided by: the specialist's score, or 1 where that is next to nothing."""
    return reference if reference >= LOWEST_REFERENCE else 1.0


def objective(scores: Iterable[Mapping[str, Any]]) -> float:
    """Mean over domains of the mean over the domain's surrogates of the normalised scores."""
    by_domain: dict[str, list[float]] = {}
    for score in scores:
        by_domain.setdefault(score["domain"], []).append(score["normalised"])
    return sum(sum(values) / len(values) for values in by_domain.values()) / len(by_domain)


def dealt(ids: Sequence[str], blocks: int, salt: str) -> list[list[str]]:
    """Deal ids to blocks whose sizes differ by at most one, by a hash of each; every block keeps the order of `ids`."""
    shuffled = sorted(ids, key=lambda item: hashlib.sha256(f"{salt}\0{item}".encode()).digest())
    place = {item: position % blocks for position, item in enumerate(shuffled)}
    found: list[list[str]] = [[] for _ in range(blocks)]
    for item in ids:
        found[place[item]].append(item)
    return found


def aggregated(columns: Mapping[str, Sequence[Any]], aggregate: str) -> Score:
    """The score of items that are given by columns, as in `log.Evaluation.scores`; those without an outcome do not count."""
    counts = columns.get("counts") or [None] * len(columns["item"])
    rows = zip(columns["item"], columns["group"], columns["outcome"], counts, strict=True)
    return AGGREGATES[aggregate](
        [
            Item(item, group, outcome, "", {} if count is None else {"counts": count})
            for item, group, outcome, count in rows
            if outcome is not None
        ]
    )
