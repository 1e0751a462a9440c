r"""Tables as LaTeX: a file for `\input`, in booktabs' style, that fits its page and breaks over pages where it is long.

No engine is at hand when tables are written, so widths are computed, for Computer Modern and the narrowest page of LaTeX's own classes
(`TEXT_WIDTH`). Columns are shares of ``\linewidth``: a wider page gives a wider table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mergebench.analysis.latex_text import Formula, escape, note, widest_piece, width
from mergebench.analysis.outputs import TABLES
from mergebench.analysis.render import MISSING, cells, headings
from mergebench.analysis.tables import MARK, NOT_APPLICABLE, Table

PACKAGES = ("array", "booktabs", "graphicx", "longtable", "pdflscape")
PREAMBLE = "\\usepackage[T1]{fontenc}\n\\usepackage{" + ",".join(PACKAGES) + "}"
TEXT_WIDTH, TEXT_HEIGHT = 345.0, 525.0
"""Points: the width of `article` at 10 pt and its height at 11 pt, on letter paper. Conferences' styles have more."""

_PAD = 3.0  # points on either side of a column
_FEWEST_WORDS = 7.0  # em: a column of text is not made narrower
_MOST_LINES = {False: 5, True: 9}  # of a cell on a page upright and turned, before the next form is tried
_SLANTED = 1.06  # how much wider italics are
_DENSE = 2  # lines of a cell up to which rows need no space between them
_FLOAT = 0.55  # of the text height: a higher table breaks over pages
_SIGN = r"\textsuperscript{\dag}"
_FIGURES = re.compile(r"[\d\s.,±†%×<>=()\[\]+\-]*K?")
_WORDS_AMONG_FIGURES = {MISSING, NOT_APPLICABLE, "best", "yes", "no", "-"}


@dataclass(frozen=True)
class Column:
    """A column as text. `words` are aligned left and broken into lines; figures are aligned right and are not."""

    heading: str
    cells: list[str]
    words: bool
    name: bool

    def natural(self) -> float:
        """Width in em of the longest cell on one line."""
        return max((_SLANTED * width(text) if text == MISSING else width(text) for text in self.cells), default=0.0)

    def least(self, *, turned: bool) -> float:
        """Width in em below which something sticks out; headings of figures that are turned need but one line's height."""
        if not self.words:
            return max(self.natural(), 1.3 if turned else widest_piece(self.heading))
        return max([widest_piece(self.heading), min(self.natural(), _FEWEST_WORDS), *map(widest_piece, self.cells)])

    def lines(self, room: float) -> list[int]:
        """Lines of every cell, in a width in em."""
        return [math.ceil(width(text) / room - 1e-6) if self.words and text else 1 for text in self.cells]


@dataclass(frozen=True)
class Form:
    """How a table is set: points of type, whatever the document's, page upright or turned, headings of figures upright or turned."""

    points: int
    landscape: bool = False
    turned: bool = False

    def em(self) -> float:
        """Points of an em as `width` counts it: small sizes of Computer Modern are wider in proportion."""
        return self.points * {9: 1.03, 8: 1.063}.get(self.points, 1.139)

    def room(self, columns: int) -> float:
        """Points that columns may fill."""
        return (TEXT_HEIGHT if self.landscape else TEXT_WIDTH) - 2 * _PAD * (columns - 1)


FORMS = (
    Form(9),
    Form(8),
    Form(7),
    Form(8, landscape=True),
    Form(7, landscape=True),
    Form(7, landscape=True, turned=True),
)
"""From the most readable on; the first into which a table fits is taken."""


def to_latex(table: Table, warnings: Sequence[str] = ()) -> str:
    r"""A file for `\input`: title and warnings above the table, rules under it, marks and missing cells as in Markdown.

    What is short becomes a float, what is long breaks over pages, what is wide stands on a turned page or, if it is wider still, in parts
    that repeat the columns of names.
    """
    columns = _columns(table)
    parts = _parts(columns)
    declared = next(output for output in TABLES if output.stem == table.name)
    where = f", in the layout of the paper's {declared.paper}" if declared.paper.startswith("Table ") else ""
    comment = [
        f"% {' '.join(declared.title.split())}",
        "% The preamble of the document needs:",
        *(f"%   {line}" for line in PREAMBLE.splitlines()),
    ]
    made = ["\n".join(comment)]
    for number, (part, form, shares) in enumerate(parts, start=1):
        caption = escape(declared.title + where) + (f" (part {number} of {len(parts)})" if len(parts) > 1 else "")
        label = f"tab:{table.name}" + (f"-{number}" if number > 1 else "")
        said = [rf"\noindent\textbf{{Warning: {escape(warning)}}}\par" for warning in warnings]
        under = [rf"\noindent {note(text)}\par" for text in table.notes] if number == len(parts) else []
        made.append(_set(part, form, shares, rf"\caption{{{caption}}}\label{{{label}}}", said, under))
    return "\n\n".join(made) + "\n"


def _columns(table: Table) -> list[Column]:
    titles, rows = headings(table), cells(table)
    found = []
    for number, title in enumerate(titles):
        column = [row[number] for row in rows]
        name = number < table.names
        figures = all(_FIGURES.fullmatch(text) or text in _WORDS_AMONG_FIGURES for text in column)
        found.append(Column(title, column, words=not figures, name=name and not figures))
    return found


def _parts(columns: list[Column]) -> list[tuple[list[Column], Form, list[float]]]:
    """The table whole if it fits in some form, else as many columns at a time as fit behind those of names."""
    for form in FORMS:
        shares = _fit(columns, form)
        if shares:
            return [(columns, form, shares)]
    names = [column for column in columns if column.name][:2]
    rest = [column for column in columns if not any(column is name for name in names)]
    form, parts = FORMS[-1], []
    while rest:
        taken = next((n for n in range(len(rest), 1, -1) if _fit([*names, *rest[:n]], form)), 1)
        part, rest = [*names, *rest[:taken]], rest[taken:]
        parts.append((part, form, _fit(part, form) or _squeezed(part, form)))
    return parts


def _fit(columns: list[Column], form: Form) -> list[float]:
    """Shares of the room, one for each column; none if the columns do not fit, or only with too many lines in a cell."""
    room, em = form.room(len(columns)), form.em()
    least = [column.least(turned=form.turned) * em for column in columns]
    wanted = [max(each, column.natural() * em) for each, column in zip(least, columns, strict=True)]
    spare, missing = room - sum(least), sum(wanted) - sum(least)
    if spare < 0:
        return []
    share = 1.0 if missing <= spare else spare / missing
    widths = [low + share * (high - low) for low, high in zip(least, wanted, strict=True)]
    highest = max((max(column.lines(each / em), default=1) for column, each in zip(columns, widths, strict=True)), default=1)
    if highest > _MOST_LINES[form.landscape] and form != FORMS[-1]:
        return []
    return [each / room for each in widths]


def _squeezed(columns: list[Column], form: Form) -> list[float]:
    """Shares of columns that do not fit even alone: in proportion."""
    least = [column.least(turned=form.turned) for column in columns]
    return [each / sum(least) for each in least]


def _set(columns: list[Column], form: Form, shares: list[float], caption: str, said: list[str], under: list[str]) -> str:
    em, room = form.em(), form.room(len(columns))
    lines = [column.lines(share * room / em) for column, share in zip(columns, shares, strict=True)]
    height = sum(map(max, zip(*lines, strict=True))) + 3  # and the heading
    long = form.landscape or height * 1.2 * form.points > _FLOAT * TEXT_HEIGHT
    if long:  # across the page, as the notes
        shares = [share / sum(shares) for share in shares]
    base = rf"\dimexpr\linewidth-{2 * _PAD * (len(columns) - 1):g}pt\relax"
    shapes = []
    for column, share in zip(columns, shares, strict=True):
        side = r"\raggedright" if column.words else r"\raggedleft"
        shapes.append(rf">{{{side}\arraybackslash}}p{{{math.floor(share * 1e4) / 1e4:.4f}{base}}}")
    shape = "@{}" + "%\n  ".join(["", *shapes]) + "@{}"
    head = _row([_heading(column, form) for column in columns])
    body = _body(columns, apart=max((count for column in lines for count in column), default=1) > _DENSE)
    style = [rf"\fontsize{{{form.points}}}{{{1.2 * form.points:g}}}\selectfont", rf"\setlength{{\tabcolsep}}{{{_PAD:g}pt}}"]
    if not long:
        return "\n".join(
            [r"\begin{table}[htbp]", r"\centering", caption, *style, *said, rf"\begin{{tabular}}{{{shape}}}", r"\toprule", head,
             r"\midrule", *body, r"\bottomrule", r"\end{tabular}", *_under(under), r"\end{table}"]
        )  # fmt: skip
    count = len(columns)
    again = rf"\multicolumn{{{count}}}{{@{{}}l@{{}}}}{{\tablename~\thetable{{}}, continued}}\\"
    onwards = rf"\multicolumn{{{count}}}{{@{{}}r@{{}}}}{{continued on the next page}}\\"
    turned = (r"\begin{landscape}", r"\end{landscape}") if form.landscape else (r"\begingroup", r"\endgroup")
    return "\n".join(
        [turned[0], *style, r"\setlength{\LTcapwidth}{\linewidth}", *said, rf"\begin{{longtable}}{{{shape}}}", caption + r"\\",
         r"\toprule", head, r"\midrule", r"\endfirsthead", again, r"\toprule", head, r"\midrule", r"\endhead", r"\midrule", onwards,
         r"\endfoot", r"\bottomrule", r"\endlastfoot", *body, r"\end{longtable}", *_under(under), turned[1]]
    )  # fmt: skip


def _under(notes: list[str]) -> list[str]:
    return [r"\par\smallskip", r"\begingroup\raggedright", *notes, r"\endgroup"] if notes else []


def _heading(column: Column, form: Form) -> str:
    text = escape(column.heading)
    return rf"\rotatebox{{90}}{{{text}}}" if form.turned and not column.words else text


def _body(columns: list[Column], *, apart: bool) -> list[str]:
    """The rows, with some space where the first column changes after it has repeated, or all `apart`."""
    marked = [not column.words and any(MARK in text for text in column.cells) for column in columns]
    rows = [
        _row([_cell(text, column, marks) for text, column, marks in zip(row, columns, marked, strict=True)])
        for row in zip(*(column.cells for column in columns), strict=True)
    ]
    first = columns[0].cells if columns else []
    grouped = columns[0].name and len(set(first)) < len(first) if columns else False
    breaks = [False, *(apart or (grouped and above != below) for above, below in pairwise(first))]
    return [line for row, space in zip(rows, breaks, strict=False) for line in ([r"\addlinespace", row] if space else [row])]


def _row(texts: list[str]) -> str:
    """A row; what begins with a bracket or star would be read as an argument of the line above."""
    safe = [f"{{{text[0]}}}{text[1:]}" if text[:1] in ("[", "*") else text for text in texts]
    return " & ".join(safe) + r" \\"


def _cell(text: str, column: Column, marked: bool) -> str:
    if isinstance(text, Formula):
        return rf"\ensuremath{{{text.latex}}}"
    if text == MISSING:
        return r"\emph{missing}"
    if column.words or not marked:
        return escape(text)
    figure = rf"\mbox{{{escape(text.replace(MARK, ''))}}}"  # marks do not move figures
    return figure + (rf"\,{_SIGN}" if MARK in text else rf"\phantom{{\,{_SIGN}}}")
