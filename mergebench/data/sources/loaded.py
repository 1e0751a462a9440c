"""What a source returns."""

from dataclasses import dataclass, field

from mergebench.data.convert.selection import Tally
from mergebench.data.records import Row


@dataclass
class Loaded:
    """Rows of a dataset and where they came from.

    Attributes:
        rows: all rows of the source, in its order.
        calibration: calibration rows that the source keeps apart itself; None where they are carved out of `rows`.
        files: SHA-256 by file name or address, of every file read.
        revisions: commit by hub dataset, of every dataset fetched from the hub.
        tallies: what became of the records of each part of a published training set; empty for everything else.
        notes: sentences on how these rows differ from the complete dataset.
    """

    rows: list[Row]
    calibration: list[Row] | None = None
    files: dict[str, str] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
