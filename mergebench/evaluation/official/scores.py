"""What the readers and writers of result files share."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergebench.errors import MergebenchError
from mergebench.evaluation.scoring import Record


@dataclass(frozen=True)
class OfficialScore:
    """One number of a result file.

    Attributes:
        benchmark: the task's name in the file, such as ``arc_fr`` or ``wildguardtest``.
        metric: its key in the file, such as ``acc_norm,none`` or ``micro harm (lower)``.
        value: as the file has it (lm-eval prints BLEU in percent).
        n: items that the number is a mean of, where the file says so.
        parts: the numbers of subgroups, by name.
    """

    benchmark: str
    metric: str
    value: float
    n: int | None = None
    parts: dict[str, float] = field(default_factory=dict)


def load(folder: Path) -> Iterator[Record]:
    """The scores of one model: every ``<benchmark>.json`` of a folder that has its ``<benchmark>.items.parquet``, by name."""
    import pandas

    for path in sorted(folder.glob("*.json")):
        items = path.with_suffix(".items.parquet")
        if items.is_file():
            yield Record(document(path), pandas.read_parquet(items))


def document(path: Path) -> dict[str, Any]:
    """A JSON object from a file; anything else is an error with its place."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MergebenchError(f"{path} does not exist.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MergebenchError(f"{path} is not JSON ({error}); a result file of lm-eval, bigcode or safety-eval was expected.") from None
    if not isinstance(value, dict):
        raise MergebenchError(f"{path} holds a {type(value).__name__}; a result file is a JSON object.")
    return value
