"""The analysis' Markdown tables as data: the pipe tables, paragraphs and notes of one file, and nothing else of Markdown."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import Markup, escape

from mergebench.report.grids import Cell, Column, Grid, number

_RULE = re.compile(r"\|(?: *:?-+:? *\|)+")
_INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")


@dataclass(frozen=True)
class Block:
    """A part of a file, one of: a heading below the title, a paragraph, a list of notes, a table."""

    heading: str = ""
    paragraph: Markup | None = None
    notes: tuple[Markup, ...] = ()
    grid: Grid | None = None


def blocks(text: str) -> list[Block]:
    """The parts of a file in order; its first heading, which is the title, is left out."""
    found: list[Block] = []
    titled = False
    for lines in _groups(text):
        if lines[0].startswith("|"):
            found.append(Block(grid=_grid(lines)))
        elif lines[0].startswith("#"):
            found += [Block(heading=lines[0].lstrip("# "))] if titled else []
            titled = True
        elif lines[0].startswith("- "):
            found.append(Block(notes=tuple(inline(line.removeprefix("- ")) for line in lines)))
        else:
            found.append(Block(paragraph=inline(" ".join(lines))))
    return found


def inline(text: str) -> Markup:
    """Escaped text, with code between backquotes and bold type between double stars."""
    made, place = Markup(""), 0
    for match in _INLINE.finditer(text):
        made += escape(text[place : match.start()])
        made += Markup("<code>{}</code>").format(match[1]) if match[1] else Markup("<strong>{}</strong>").format(match[2])
        place = match.end()
    return made + escape(text[place:])


def _groups(text: str) -> list[list[str]]:
    """Lines that belong together: of one kind, without a blank line between; every heading alone."""
    found: list[list[str]] = []
    kind = ""
    for line in text.splitlines():
        now = line[:1] if line[:1] in ("|", "#") else "-" if line.startswith("- ") else "p" if line.strip() else ""
        if now and now == kind and now != "#":
            found[-1].append(line)
        elif now:
            found.append([line])
        kind = now
    return found


def _grid(lines: list[str]) -> Grid:
    header, *rest = [_cells(line) for line in lines]
    ruled = len(lines) > 1 and _RULE.fullmatch(lines[1].strip()) is not None
    right = [ruled and place < len(rest[0]) and rest[0][place].endswith(":") for place in range(len(header))]
    body = [[*row, *[""] * (len(header) - len(row))][: len(header)] for row in (rest[1:] if ruled else rest)]
    rows = [[Cell(text) for text in row] for row in body]
    below = [[row[place] for row in rows] for place in range(len(header))]
    # A column of numbers may hold a word, as "best" stands for a distance to the best: words rank below all numbers.
    numeric = [
        right[place] and (any(number(cell.text) is not None for cell in column) or all(cell.absent for cell in column))
        for place, column in enumerate(below)
    ]
    return Grid([Column.of(*each) for each in zip(header, below, numeric, strict=True)], rows)


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]
