"""A model's answers to one benchmark that is scored later, by a judge or in a sandbox: a record and a table.

``answers/<base>/<model>/<benchmark>.json`` says what was asked of whom: the score record without its value. The table
``<benchmark>.responses.parquet`` beside it has a row per answer: ``item`` (the row's id), ``sample`` (from 0), ``response``,
``finish`` (``stop``; ``length`` where the limit of tokens cut it; null where the backend does not say) and ``tokens``
(null where the backend does not count). The record holds the table's digest, so that the two cannot be mixed up.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergebench.artifacts import read_json, sha256_file, write_json
from mergebench.errors import MergebenchError

COLUMNS = ("item", "sample", "response", "finish", "tokens")
STOPPED, CUT = "stop", "length"


@dataclass(frozen=True)
class Response:
    """One answer.

    Attributes:
        item: id of the row that was asked.
        sample: which of several answers to the same prompt, from 0.
        text: what the model wrote, up to the stop strings.
        finish: ``stop``, ``length``, or None where the backend does not say.
        tokens: length of the text in the model's tokens; None where unknown.
    """

    item: str
    sample: int
    text: str
    finish: str | None = None
    tokens: int | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What labels of a judge are kept under."""
        return self.item, self.sample


@dataclass(frozen=True)
class Answers:
    """All answers of a model to a benchmark, in the order of its rows, and the record that identifies them."""

    record: dict[str, Any]
    responses: tuple[Response, ...]

    @property
    def digest(self) -> str:
        """Of what was answered, wherever it is kept."""
        parts = (f"{r.item}\0{r.sample}\0{r.text}\1" for r in self.responses)
        return hashlib.sha256("".join(parts).encode("utf-8", "replace")).hexdigest()

    def by_item(self) -> dict[str, list[Response]]:
        """The answers to each row, in the order of their samples."""
        found: dict[str, list[Response]] = {}
        for response in self.responses:
            found.setdefault(response.item, []).append(response)
        return found


def table_of(record: Path) -> Path:
    """The table beside a record."""
    return record.with_name(f"{record.stem}.responses.parquet")


def write(record: Path, table: Path, answers: Answers) -> None:
    """Write a table, then its record, each complete or absent.

    Raises:
        MergebenchError: two answers have the same item and sample.
    """
    import pyarrow
    from pyarrow import parquet

    _distinct(answers.responses, str(record))
    columns = {
        "item": pyarrow.array([r.item for r in answers.responses], pyarrow.string()),
        "sample": pyarrow.array([r.sample for r in answers.responses], pyarrow.int32()),
        # A lone surrogate, which no tokenizer decodes to but a stub may write, has no UTF-8.
        "response": pyarrow.array([r.text.encode("utf-8", "replace").decode() for r in answers.responses], pyarrow.string()),
        "finish": pyarrow.array([r.finish for r in answers.responses], pyarrow.string()),
        "tokens": pyarrow.array([r.tokens for r in answers.responses], pyarrow.int32()),
    }
    table.parent.mkdir(parents=True, exist_ok=True)
    temporary = table.with_name(f".{table.name}.tmp-{os.getpid()}")
    try:
        parquet.write_table(pyarrow.table(columns), temporary, compression="zstd")
        os.replace(temporary, table)
    finally:
        temporary.unlink(missing_ok=True)
    facts = {"rows": len(answers.responses), "sha256": sha256_file(table)}
    write_json(record, {**answers.record, "answers": facts})


def read(record: Path, table: Path | None = None) -> Answers:
    """The answers of a record; its table is looked for beside it.

    Raises:
        MergebenchError: a file is missing or broken, or the table is not the one that the record names.
    """
    from pyarrow import ArrowException, parquet

    table = table or table_of(record)
    content = read_json(record)
    facts = content.get("answers") if isinstance(content, dict) else None
    if not isinstance(facts, dict) or "sha256" not in facts:
        raise MergebenchError(f"{record} is not a record of answers (it has no `answers.sha256`); delete it, and the model is asked again.")
    if not table.is_file():
        raise MergebenchError(f"{table} is missing, but {record} describes it; delete the record, and the model is asked again.")
    if sha256_file(table) != facts["sha256"]:
        raise MergebenchError(f"{table} does not have the SHA-256 that {record} records; delete both, and the model is asked again.")
    try:
        columns = parquet.read_table(table, columns=list(COLUMNS)).to_pydict()
    except (ArrowException, OSError) as error:
        raise MergebenchError(f"{table} cannot be read as a table of answers ({error}); delete it, and the model is asked again.") from None
    rows = zip(*(columns[name] for name in COLUMNS), strict=True)
    return Answers(content, tuple(Response(*row) for row in rows))


def _distinct(responses: Iterable[Response], where: str) -> None:
    seen: set[tuple[str, int]] = set()
    for response in responses:
        if response.key in seen:
            raise MergebenchError(f"{where}: sample {response.sample} of item {response.item!r} was answered twice; ids must differ.")
        seen.add(response.key)
