"""From scored items to a score record that explains itself."""

import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mergebench.errors import MergebenchError
from mergebench.evaluation.aggregate import AGGREGATES, Item

if TYPE_CHECKING:
    import pandas

LIBRARIES = ("lm_eval", "transformers", "torch", "tokenizers", "sacrebleu", "math_verify", "langdetect")


@dataclass(frozen=True)
class Record:
    """The score of one benchmark: `summary` for JSON, `items` with a row per scored row. On disk the summary names base and model too."""

    summary: dict[str, Any]
    items: "pandas.DataFrame"

    @property
    def value(self) -> float:
        """The headline value in [0, 1]."""
        return float(self.summary["value"])

    @property
    def benchmark(self) -> str:
        """The benchmark's name in the catalogue."""
        return str(self.summary["benchmark"])

    def extras(self) -> list[dict[str, Any]]:
        """What is kept of every item beside its outcome, response and extracted answer."""
        return [json.loads(extra) for extra in self.items["extra"]]


def record(asked: Mapping[str, Any], metadata: Mapping[str, Any], items: Sequence[Item], **settled: Any) -> Record:
    """The record of a benchmark whose items all have their outcome.

    Args:
        asked: what `asking` has noted of the benchmark: everything but the value.
        metadata: of the task; names the aggregate.
        items: one per row, in the order of the rows.
        settled: what settled the outcomes: ``judge``, ``sandbox``, ``seconds``.

    Raises:
        MergebenchError: not one item can be scored.
    """
    scorable = [item for item in items if not math.isnan(item.outcome)]
    score = AGGREGATES[metadata["aggregate"]](scorable)
    if math.isnan(score.value):
        reason = next((item.extra["unscorable"] for item in items if "unscorable" in item.extra), "no row")
        raise MergebenchError(f"{asked['benchmark']}: none of {len(items)} rows can be scored: {reason}.")
    summary = {
        **asked,
        "value": score.value,
        "standard_error": score.standard_error,
        "n": score.n,
        "parts": score.parts,
        "unscorable": _unscorable(items),
        "extraction_failures": _extraction_failures(items),
        "judge": settled.get("judge"),
        "sandbox": settled.get("sandbox"),
        "seconds": {**asked["seconds"], "settled": settled.get("seconds")},
    }
    return Record(summary, _frame(items))


def _unscorable(items: Sequence[Item]) -> dict[str, Any] | None:
    reasons = [item.extra.get("unscorable", "no outcome") for item in items if math.isnan(item.outcome)]
    return {"count": len(reasons), "reason": reasons[0]} if reasons else None


def _extraction_failures(items: Sequence[Item]) -> int | None:
    """Items in whose answer the scorer found nothing to compare; None for a benchmark that extracts nothing."""
    extracted = [item.extra["extracted"] for item in items if "extracted" in item.extra]
    return sum(found is None for found in extracted) if extracted else None


def _frame(items: Sequence[Item]) -> "pandas.DataFrame":
    import pandas

    return pandas.DataFrame(
        {
            "item": [item.id for item in items],
            "outcome": [item.outcome for item in items],
            "group": [item.group for item in items],
            "cluster": [item.cluster for item in items],
            "response": [_utf8(item.response) for item in items],
            "extracted": pandas.Series([_text(item.extra.get("extracted")) for item in items], dtype=object),
            "extra": [_utf8(json.dumps({k: v for k, v in item.extra.items() if k != "extracted"}, sort_keys=True)) for item in items],
        }
    )


def _text(value: Any) -> str | None:
    """What was extracted, as text: a string as it is, anything else as JSON."""
    if value is None:
        return None
    return _utf8(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True))


def _utf8(text: str) -> str:
    """Lone surrogates, which Parquet cannot hold, become question marks."""
    return text.encode("utf-8", "replace").decode()


@lru_cache(maxsize=1)
def _installed() -> tuple[tuple[str, str], ...]:
    found = []
    for library in LIBRARIES:
        try:
            found.append((library, importlib.metadata.version(library)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(found)


def versions() -> dict[str, str]:
    """Versions of the libraries that take part in a score."""
    return dict(_installed())
