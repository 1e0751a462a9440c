"""Cut a file of lines into spans of bytes that processes can read on their own."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `stop` of a file; the first line in them is line `line`."""

    number: int
    start: int
    stop: int
    line: int


def spans(path: Path, lines: int) -> list[Span]:
    """Cut a file into spans of `lines` lines (the last one has the rest; an empty file has none)."""
    found: list[Span] = []
    start, line = 0, 1
    with path.open("rb") as stream:
        while count := sum(1 for _ in islice(iter(stream.readline, b""), lines)):
            found.append(Span(len(found), start, stream.tell(), line))
            start, line = stream.tell(), line + count
    return found


def numbered(path: Path, span: Span) -> Iterator[tuple[int, bytes]]:
    """The lines of a span with their numbers, without their ends."""
    with path.open("rb") as stream:
        stream.seek(span.start)
        # Not splitlines: texts contain other line separators, such as U+2028.
        yield from enumerate(stream.read(span.stop - span.start).removesuffix(b"\n").split(b"\n"), start=span.line)
