r"""Text as LaTeX that every engine prints, and how wide it becomes."""

from __future__ import annotations

import re
import unicodedata

_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "`": r"\textasciigrave{}", '"': r"\textquotedbl{}", "'": r"\textquotesingle{}",
    "†": r"\textsuperscript{\dag}", "–": r"\textendash{}", "—": r"\textemdash{}", "…": r"\ldots{}", "\u00a0": "~",
    "“": r"\textquotedblleft{}", "”": r"\textquotedblright{}", "‘": r"\textquoteleft{}", "’": r"\textquoteright{}",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}",
}  # fmt: skip
_SYMBOLS = {
    "<": "<", ">": ">", "|": "|", "−": "-", "±": r"\pm", "×": r"\times", "≥": r"\ge", "≤": r"\le", "≈": r"\approx", "·": r"\cdot",
    "→": r"\rightarrow", "°": r"^\circ", "Σ": r"\Sigma", "Δ": r"\Delta", "Ω": r"\Omega",
    "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "ε": r"\epsilon", "θ": r"\theta", "λ": r"\lambda", "μ": r"\mu",
    "π": r"\pi", "ρ": r"\rho", "σ": r"\sigma", "τ": r"\tau", "φ": r"\phi", "χ": r"\chi", "ω": r"\omega",
}  # fmt: skip
_ESCAPES |= {letter: rf"\ensuremath{{{symbol}}}" for letter, symbol in _SYMBOLS.items()}
_ACCENTS = dict(zip("\u0300\u0301\u0302\u0303\u0308\u030a\u0327\u030c\u0304\u0306\u0307\u0328\u030b", "`'^~\"rcv=u.kH", strict=True))
_MINUS = re.compile(r"(?<![\w)\]])-(?=\d)")
_LIGATURE = re.compile(r"([-,])(?=\1)")
_BREAK = re.compile(r"(?<=[/_:=])(?=\w)|(?<=[a-z]\.)(?=[a-z])")
_LONG_WORD = 14  # letters from which a word may be broken where it has a separator
_LONGEST_PIECE = 24  # letters after which a word is broken wherever it is
_WIDTHS = {
    **dict.fromkeys("ilj.,:;'|![]", 0.29),
    **dict.fromkeys("Iftrs()-†", 0.4),
    **dict.fromkeys("bdhknpquvxy", 0.56),
    **dict.fromkeys("mM%@", 0.9),
    **dict.fromkeys("wW", 0.8),
    **dict.fromkeys("ABCDEFGHKLNOPQRSTUVXYZ&", 0.75),
    **dict.fromkeys("±×+<>=≥≤≈−→·", 0.8),
    " ": 0.34,
}
_OTHER = 0.51  # digits and the other small letters


class Formula(str):
    """A formula as plain text, with the same in LaTeX's mathematics as `latex`."""

    latex: str

    def __new__(cls, text: str, latex: str) -> Formula:
        """Both forms of one formula."""
        made = super().__new__(cls, text)
        made.latex = latex
        return made


def escape(text: str) -> str:
    """Plain text as LaTeX: special letters, minus signs, accents; what no font is sure to have by its number, as ``[U+4E2D]``.

    Long words get places where they may be broken.
    """
    text = " ".join(text.split())
    return " ".join(r"\allowbreak{}".join(map(_escaped, pieces(word))) for word in text.split(" "))


def note(text: str) -> str:
    """A sentence as LaTeX, in which what stands between backticks is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return "".join(rf"\texttt{{{escape(part)}}}" if odd % 2 else _spaced(part) for odd, part in enumerate(parts))


def pieces(word: str) -> list[str]:
    """The parts of a word between which LaTeX may break it, besides after hyphens."""
    if len(word) < _LONG_WORD:
        return [word]
    found = _BREAK.split(word)
    return [piece[start : start + _LONGEST_PIECE] for piece in found for start in range(0, max(1, len(piece)), _LONGEST_PIECE)]


def width(text: str) -> float:
    """Width in em of Computer Modern Roman at 10 pt, rather too wide than too narrow."""
    return sum(_WIDTHS.get(letter, _OTHER if letter.isascii() else 0.8) for letter in text)


def widest_piece(text: str) -> float:
    """Width in em of the longest part of a text that LaTeX does not break; a formula breaks behind its comma and its equals signs alone."""
    if isinstance(text, Formula):
        return max(map(width, re.split(r"(?<=[=,]) ", text)))
    unbroken = (part for word in text.split() for piece in pieces(word) for part in re.split(r"(?<=-)(?=\w)", piece))
    return max(map(width, unbroken), default=0.0)


def _spaced(part: str) -> str:
    """`escape` that keeps a blank at either end."""
    return (" " if part[:1].isspace() else "") + escape(part) + (" " if part.strip() and part[-1:].isspace() else "")


def _escaped(text: str) -> str:
    text = _MINUS.sub("−", text)
    return _LIGATURE.sub(r"\1{}", "".join(map(_letter, text)))


def _letter(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    if letter.isascii() and letter.isprintable():
        return letter
    base, *marks = list(unicodedata.normalize("NFD", letter))
    if base.isascii() and base.isalpha() and len(marks) == 1 and marks[0] in _ACCENTS:
        return rf"\{_ACCENTS[marks[0]]}{{{base}}}"
    return f"[U+{ord(letter):04X}]"
