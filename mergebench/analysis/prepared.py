"""What was prepared of each dataset, from the manifests of the data: where rows came from and how many there are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mergebench.analysis.records import Record


def read_prepared(manifests: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Read `data/<dataset>/manifest.json`.

    Returns:
        By dataset, the folder's name: `source` ("hub", "local" or "tiny"), `found` (rows that the source yielded), `rows` (number of
        rows by file: "rows" of benchmarks; "train" and "calibration" of training sets) and `notes`.

    Raises:
        MergebenchError: a manifest is not what preparation leaves.
    """
    found = {}
    for path in map(Path, manifests):
        record = Record(path)
        notes = record.content.get("notes", [])
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise record.wrong("notes", "a list of strings")
        rows = record.mapping("rows")
        if not all(type(count) is int and count >= 0 for count in rows.values()):
            raise record.wrong("rows", "the number of rows of each file")
        found[path.parent.name] = {
            "source": record.text("source"),
            "found": int(record.number("source_rows", 0)),
            "rows": rows,
            "notes": notes,
        }
    return found
