"""The report on one training set: counts by benchmark, and examples by id. No text is quoted: some of it is harmful."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

EXAMPLES = 5
_HEADER = ("benchmark", "use", "items", "searched", "rows hit", "% of rows", "items hit", "% of searched", "example rows", "example items")


@dataclass
class Overlap:
    """What a training set shares with one benchmark.

    Attributes:
        items: all of the benchmark; `searched` of them have a text that is long enough to be looked for.
        rows: how many training rows share an n-gram with it.
        hit: numbers of the items that share one.
        examples: ids of the first training rows, each with the id of an item.
    """

    benchmark: str
    use: str
    items: int = 0
    searched: int = 0
    rows: int = 0
    hit: set[int] = field(default_factory=set)
    examples: list[tuple[str, str]] = field(default_factory=list)

    def line(self, rows: int) -> dict[str, str | int | float]:
        """One line of the report on a training set of so many rows."""
        values = (
            self.benchmark,
            self.use,
            self.items,
            self.searched,
            self.rows,
            round(100 * self.rows / rows, 3),
            len(self.hit),
            round(100 * len(self.hit) / self.searched, 3) if self.searched else 0.0,
            " ".join(row for row, _ in self.examples),
            " ".join(item for _, item in self.examples),
        )
        return dict(zip(_HEADER, values, strict=True))


def as_csv(training_set: str, rows: int, overlaps: Sequence[Overlap]) -> str:
    """One line for each benchmark."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["training set", "rows", *_HEADER], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"training set": training_set, "rows": rows, **overlap.line(rows)} for overlap in overlaps)
    return stream.getvalue()


def as_markdown(training_set: str, rows: int, hit: int, ngram: int, shortest: int, overlaps: Sequence[Overlap]) -> str:
    """The same as a page."""
    lines = [
        f"# Overlap of {training_set} with the benchmarks",
        "",
        f"{hit:,} of {rows:,} rows share {ngram} words in a row with an item of a benchmark or surrogate (words in lower case, without "
        f"punctuation). Texts of fewer than {ngram} words are looked for as a whole, those of fewer than {shortest} not at all.",
        "",
        "| " + " | ".join(_HEADER) + " |",
        "|" + " --- |" * len(_HEADER),
        *(
            "| " + " | ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in o.line(rows).values()) + " |"
            for o in overlaps
        ),
    ]
    return "\n".join(lines) + "\n"
