"""The search log: one row per candidate and surrogate, kept as the search goes so that it can be taken up again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLUMNS = (
    "candidate",
    "stage",
    "parameters",
    "surrogate",
    "domain",
    "value",
    "n",
    "reference",
    "normalised",
    "seconds",
    "weights",
    "alias_of",
)


class SearchLog:
    """Rows appended to a JSON Lines file; a half-written last line, left by a kill, is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        complete = []
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []:
            if not line.endswith("\n"):
                break
            complete.append(line)
            self.rows += json.loads(line)
        path.write_text("".join(complete), encoding="utf-8")

    def of(self, candidate: int) -> list[dict[str, Any]]:
        """The rows of a candidate that has been scored, or an empty list."""
        return [row for row in self.rows if row["candidate"] == candidate]

    def same_weights(self, weights: str, domains: Sequence[str]) -> int | None:
        """The first candidate with these weights that was scored on the surrogates of these domains; None if there is none."""
        for row in self.rows:
            if row.get("weights") == weights and row["alias_of"] is None:
                number = row["candidate"]
                if {other["domain"] for other in self.of(number)} == set(domains):
                    return int(number)
        return None

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Append all rows of one candidate at once."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(rows) + "\n")
        self.rows += rows

    def write(self, path: Path) -> None:
        """Write the log as Parquet, candidates in the order of the search."""
        import pandas as pd

        frame = pd.DataFrame(sorted(self.rows, key=lambda row: int(row["candidate"])), columns=list(COLUMNS))
        frame.astype({"alias_of": "Int64"}).to_parquet(path, index=False)
