"""Which published records of a training set become rows, and why the others do not.

A training set's filter has one decision for each part: it makes a row of a record, or gives the reason why not. The
reasons are counted, and compared with what is known of the published set (`check_counts`).
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mergebench.data.records import Parts, Record, Row
from mergebench.errors import MergebenchError, nearest

# A row, or the reason for leaving the record out. The number is the record's place in its part.
Decision = Callable[[Record, int], Row | str]
Filters = Mapping[str, Mapping[str, Decision]]  # filter -> part -> decision

NO_PROMPT = "no prompt"
NO_RESPONSE = "no response"
# Where a number of the catalogue comes from. One that was only remembered warns instead of stopping.
KNOWN = ("paper", "card", "code", "memory")


@dataclass
class Tally:
    """What became of the records of one part."""

    records: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)

    def count(self, what: str) -> int:
        """``records``, ``kept``, how many were dropped for a reason, or kept of a language (``kept: fr``)."""
        if what.startswith("kept: "):
            return self.languages[what.removeprefix("kept: ")]
        return {"records": self.records, "kept": self.kept}.get(what, self.dropped[what])

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        languages = {"languages": dict(sorted(self.languages.items()))} if self.languages else {}
        return {"records": self.records, "kept": self.kept, "dropped": dict(sorted(self.dropped.items())), **languages}

    def __str__(self) -> str:
        parts = [f"{number:,} {reason}" for reason, number in sorted(self.dropped.items())]
        kept = [f"{language} {number:,}" for language, number in sorted(self.languages.items())]
        dropped = f"; dropped {', '.join(parts)}" if parts else ""
        return f"{self.records:,} records, {self.kept:,} kept" + (f" ({', '.join(kept)})" if kept else "") + dropped


def chosen(dataset: str, entry: Mapping[str, Any], name: str | None) -> str | None:
    """The filter of a training set: the one asked for, or the first of the catalogue (None, if it has none)."""
    known = list(entry.get("filters", {}))
    if name is not None and name not in known:
        raise MergebenchError(f"{dataset} has no filter {name!r}; {nearest(name, known) if known else 'it has none at all'}.")
    return name or (known[0] if known else None)


def select(decisions: Mapping[str, Decision], parts: Parts) -> tuple[list[Row], dict[str, Tally]]:
    """The rows that a filter makes of the parts, and what became of every record."""
    rows: list[Row] = []
    tallies: dict[str, Tally] = {}
    for part, decide in decisions.items():
        tally = tallies[part] = Tally()
        for index, record in enumerate(parts[part]):
            tally.records += 1
            decided = decide(record, index)
            if isinstance(decided, str):
                tally.dropped[decided] += 1
                continue
            tally.kept += 1
            if "language" in decided:
                tally.languages[decided["language"]] += 1
            rows.append(decided)
    return rows, tallies


def check_counts(dataset: str, name: str, entry: Mapping[str, Any], tallies: Mapping[str, Tally], *, stop: bool = True) -> list[str]:
    """Compare what was found with what is known of the complete published set.

    Args:
        stop: raise where the number is stated by the paper, the dataset's card or released code. One that the catalogue has
            from memory only never stops.

    Returns:
        A warning for every other number that differs.

    Raises:
        MergebenchError: with both numbers, where the expected one comes from, and how many records each reason dropped.
    """
    warnings = []
    expected: Mapping[str, Mapping[str, tuple[int, str]]] = entry["filters"][name].get("counts", {})
    for part, numbers in expected.items():
        for what, (count, known) in numbers.items():
            found = tallies[part].count(what)
            if found == count:
                continue
            label = {"records": "records", "kept": f"rows with filter {name}"}.get(what, f"records {what!r}")
            sentence = (
                f"{dataset}, part {part}: {found:,} {label}, expected {count:,} (known from {_SOURCE[known]}). Found: {tallies[part]}."
            )
            if stop and known != "memory":
                raise MergebenchError(
                    f"{sentence} The published data have changed or the download is incomplete: pin the revision that you want, "
                    "or correct the number, in the catalogue of datasets."
                )
            warnings.append(sentence)
    return warnings


_SOURCE = {"paper": "the paper's Table 5", "card": "the dataset's card", "code": "released code", "memory": "memory only"}


def given(record: Record, column: str) -> str:
    """A column's text; empty where it is missing in the way that tables miss a value (null, NaN, blank).

    Raises:
        MergebenchError: the column does not exist, or holds something else than a text.
    """
    value = record[column]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = record.text(column)
    return text if text.strip() else ""


def exchange(prompt: str, response: str, **more: str) -> Row | str:
    """A row of a prompt and a response, or which of the two is lacking."""
    if not prompt:
        return NO_PROMPT
    if not response:
        return NO_RESPONSE
    return {**more, "prompt": prompt, "response": response}


def columns(part: str, prompt: str, response: str, context: str | None = None) -> Decision:
    """For training sets of a user's own: which columns hold the prompt, the response and, optionally, its input."""

    def decide(record: Record, index: int) -> Row | str:
        row = exchange(given(record, prompt).strip(), given(record, response).strip(), id=f"{part}/{index:06d}")
        extra = given(record, context).strip() if context else ""
        return row if isinstance(row, str) or not extra else {**row, "input": extra}

    return decide
