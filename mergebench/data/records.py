"""A record as its authors published it, which knows where it stands in its file."""

import re
from typing import Any

from mergebench.errors import MergebenchError

Row = dict[str, Any]

# Columns that a message lists at most; a document may have thousands of keys.
SHOWN = 12


class Record(dict[str, Any]):
    """One record of a source file; reading a column that is not there names the file and the record."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        super().__init__(values)
        self.where = where

    def __missing__(self, column: str) -> Any:
        columns = [*map(repr, self)]
        shown = ", ".join(columns[:SHOWN] + ["…"] * (len(columns) > SHOWN)) or "none"
        raise MergebenchError(
            f"{self.where} has no column {column!r}; it has {shown}. The file is not laid out as its authors publish it: get it again."
        )

    def text(self, column: str) -> str:
        """A column that must be a text."""
        value = self[column]
        if not isinstance(value, str):
            raise self.error(f"{column!r} is a {type(value).__name__}, expected a text")
        return value

    def error(self, found: str) -> MergebenchError:
        """An error about this record; `found` says what was found and what was expected."""
        return MergebenchError(f"{self.where}: {found}.")


# What a source hands to a converter: the records of each of its parts (a language, a subject, a file) by name.
Parts = dict[str, list[Record]]


def same_text(text: str) -> str:
    """The form in which two texts count as the same: case-folded, with single spaces."""
    return re.sub(r"\s+", " ", text).strip().casefold()
