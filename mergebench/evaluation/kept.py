"""Finished benchmarks, kept under a digest of all that decides them: a record and a table in a folder.

The folder appears by one rename, so that it is whole or absent. It outlives the job: who groups the same work into other
jobs, or deletes an output, gets it back without doing it again.
"""

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mergebench.artifacts import remove, sha256_json

RECORD = "record.json"
DIGITS = 24


class Kept:
    """The benchmarks of one model that are kept below `folder`, by name and key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, name: str, decisive: Mapping[str, Any]) -> Path:
        """The folder of a benchmark, whether it is there or not."""
        return self.folder / f"{name}-{sha256_json(decisive)[:DIGITS]}"

    def has(self, place: Path) -> bool:
        """Whether the record and the table are there."""
        return (place / RECORD).is_file() and any(place.glob("*.parquet"))

    def table(self, place: Path) -> Path:
        """The table of a benchmark that is there."""
        return next(place.glob("*.parquet"))

    def put(self, place: Path, write: Callable[[Path], None]) -> None:
        """Keep a benchmark: `write` fills a folder, which then appears as `place`; older ones of the same name are removed."""
        temporary = place.with_name(f".{place.name}.tmp-{os.getpid()}")
        remove(temporary)
        temporary.mkdir(parents=True)
        try:
            write(temporary)
            while not self.has(place):  # another job may make the same at this moment
                try:
                    os.rename(temporary, place)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    if not self.has(place):  # half of one, whose rest was deleted
                        remove(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        name = place.name[: -DIGITS - 1]
        for other in self.folder.glob(f"{name}-*"):
            if other != place and len(other.name) == len(place.name):
                remove(other)
