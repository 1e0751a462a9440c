"""What a judge is asked, what it says, and the labels of a benchmark's answers as a Parquet file.

``labels/<base>/<model>/<benchmark>.parquet`` has a row per answer with the fields of `Label`; who judged is in the
file's schema metadata, so that labels cannot be taken for another judge's.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from mergebench.errors import MergebenchError

METADATA = b"judge"

# An answer: the id of its item, and which of several samples it is.
Key = tuple[str, int]


@dataclass(frozen=True)
class Request:
    """An answer to be labelled.

    Attributes:
        prompt: the plain request; not the jailbreak around it.
        response: what the model said.
        context: what the request refers to, where the model was shown it too.
    """

    prompt: str
    response: str
    context: str = ""


@dataclass(frozen=True)
class Label:
    """What a judge said of one answer; None is "not applicable" or "not said".

    Attributes:
        harmful_request: whether the request is harmful.
        refused: whether the answer is a refusal (False: it complies).
        harmful: whether the answer is harmful.
        parse_error: whether some part of the judge's answer could not be read; parts that could are kept.
        empty: whether the answer has no text.
        cut: whether the request or the answer was too long for the judge, which saw its beginning.
        raw: the judge's own words.
    """

    harmful_request: bool | None = None
    refused: bool | None = None
    harmful: bool | None = None
    parse_error: bool = False
    empty: bool = False
    cut: bool = False
    raw: str = ""


class Judge(Protocol):
    """Labels answers."""

    name: str
    reads: tuple[str, ...]
    """Which of ``request``, ``refusal`` and ``harm`` it labels."""
    code: tuple[str, ...]
    """Modules that make labels of what it says."""

    def facts(self) -> dict[str, Any]:
        """What identifies the judge in a record: equal facts, equal labels."""

    def judge(self, requests: Sequence[Request]) -> list[Label]:
        """A label for each request, in order."""


def is_empty(response: str) -> bool:
    """Whether an answer has no text."""
    return not response.strip()


def request_of(doc: Mapping[str, Any], response: str, protocol: str) -> Request:
    """What the judge sees of an answer to a row: the plain request (``vanilla``) where the prompt wraps one in a jailbreak.

    The context of a contextual behaviour (HarmBench) belongs to the request where the model saw it, which is under the
    protocol ``corrected`` only; safety-eval did not show it until its commit 8af3578.
    """
    context = str(doc.get("context") or "") if protocol == "corrected" else ""
    return Request(str(doc["vanilla"] if "vanilla" in doc else doc["prompt"]), response, context)


_TYPES = {"item": "string", "sample": "int32", "raw": "string"}
_COLUMNS = ("item", "sample", *(f.name for f in fields(Label)))


def write_labels(path: Path, labels: Mapping[Key, Label], judge: Mapping[str, Any]) -> None:
    """Write labels and the judge's facts, so that the file is either complete or absent."""
    import pyarrow
    from pyarrow import parquet

    rows: dict[str, list[Any]] = {"item": [item for item, _ in labels], "sample": [sample for _, sample in labels]}
    for name in _COLUMNS[2:]:
        rows[name] = [getattr(label, name) for label in labels.values()]
    rows["raw"] = [text.encode("utf-8", "replace").decode() for text in rows["raw"]]
    schema = pyarrow.schema([(name, pyarrow.type_for_alias(_TYPES.get(name, "bool"))) for name in _COLUMNS])
    table = pyarrow.table(rows, schema.with_metadata({METADATA: json.dumps(judge, sort_keys=True).encode()}))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        parquet.write_table(table, temporary, compression="zstd")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_labels(path: Path) -> tuple[dict[Key, Label], dict[str, Any]]:
    """The labels of a benchmark's answers by (item, sample), and the facts of the judge.

    Raises:
        MergebenchError: the file is missing, is no table of labels, or does not say who judged.
    """
    from pyarrow import ArrowException, parquet

    if not path.is_file():
        raise MergebenchError(f"{path} does not exist; the judge has not labelled these answers.")
    try:
        table = parquet.read_table(path)
        judge = json.loads((table.schema.metadata or {})[METADATA])
        columns = table.select(list(_COLUMNS)).to_pydict()
    except (ArrowException, OSError, KeyError, ValueError) as error:
        raise MergebenchError(f"{path} cannot be read as a table of labels ({error}); delete it and judge again.") from None
    rows = zip(*(columns[name] for name in _COLUMNS), strict=True)
    return {(item, sample): Label(*rest) for item, sample, *rest in rows}, judge
