"""Verifiable rewards for math: does the number that a completion gives equal the right one?"""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from mergebench.training.verifier import same_expression

LONGEST = 400  # characters of an answer; what is longer is none
_HASHES = re.compile(r"####[ \t]*([^\n]+)")
_PHRASE = re.compile(r"\banswer\s*(?:is|:)[\s:]*([^\s:][^\n]*)", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
_WITH_UNIT = re.compile(rf"(?:[a-z]\s*=\s*)?({_NUMBER.pattern})(?: [A-Za-z ]+)?")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"[{}]")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{(-?\d+)\}\{(-?\d+)\}")


def anchored_answer(text: str) -> str | None:
    r"""The answer that a text marks as such: ``#### 124``, ``\boxed{124}`` or ``The answer is 124.``

    The last mark of the first kind present counts, in that order of kinds; None without a mark.
    """
    if found := _HASHES.findall(text):
        return _clean(found[-1])
    if (boxed := _last_boxed(text)) is not None:
        return _clean(boxed)
    if found := _PHRASE.findall(text):
        return _clean(found[-1])
    return None


def extract_answer(text: str) -> str | None:
    """The marked answer, else the last number in the text, else None."""
    marked = anchored_answer(text)
    if marked:
        return marked
    numbers = _NUMBER.findall(text)
    return _clean(numbers[-1]) if numbers else None


def equivalent(found: str, expected: str) -> bool:
    """Whether two answers are the same number, the same text, or the same expression (math-verify, where it is installed)."""
    if len(found) > LONGEST or len(expected) > LONGEST:
        return found == expected
    a, b = _number(found), _number(expected)
    if a is None and b is not None and (measure := _WITH_UNIT.fullmatch(found)):
        a = _number(measure[1])
    if a is not None and b is not None:
        return a == b
    if _squeeze(found) == _squeeze(expected):
        return True
    return same_expression(found, expected)


def accuracy(completion: str, answer: str) -> float:
    """1.0 if the completion's answer equals `answer` (a bare answer or a worked solution that ends in one)."""
    found = extract_answer(completion)
    return float(found is not None and equivalent(found, anchored_answer(answer) or _clean(answer)))


def marks_answer(completion: str) -> float:
    """1.0 if the completion marks its answer in a form that the benchmarks' extractors accept."""
    return float(bool(anchored_answer(completion)))


def accuracy_reward(completions: Sequence[Any], answer: Sequence[str], **_: Any) -> list[float | None]:
    """TRL reward function: `accuracy` of conversational or plain completions."""
    return [accuracy(_text(c), a) for c, a in zip(completions, answer, strict=True)]


def format_reward(completions: Sequence[Any], **_: Any) -> list[float | None]:
    """TRL reward function: `marks_answer` of conversational or plain completions."""
    return [marks_answer(_text(c)) for c in completions]


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else completion[0]["content"]


def _last_boxed(text: str) -> str | None:
    """Content of the last ``\\boxed{...}`` whose braces balance, in one pass over the text."""
    starts = {match.end() - 1 for match in _BOXED.finditer(text)}
    if not starts:
        return None
    opened: list[int] = []
    last: tuple[int, int] | None = None
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif opened and (start := opened.pop()) in starts and (last is None or start > last[0]):
            last = (start, brace.start())
    return text[last[0] + 1 : last[1]] if last else None


def _clean(answer: str) -> str:
    answer = answer.strip().strip("$").replace("\\$", "").strip()
    if (boxed := _last_boxed(answer)) is not None:
        answer = boxed.strip()
    return answer.rstrip(".").strip().strip("$*").rstrip(".").strip()


def _number(answer: str) -> Fraction | None:
    """Exact value of an integer, decimal or fraction with optional thousands separators, currency or percent sign."""
    text = _FRACTION.sub(r"\1\2/\3", answer.strip())
    text = text.strip("$€£").replace("\\%", "").rstrip("%").replace(",", "").replace(" ", "")
    try:
        if "/" in text:
            numerator, denominator = text.split("/")
            return Fraction(int(numerator), int(denominator))
        return Fraction(Decimal(text)) if re.fullmatch(r"[+-]?\d*\.?\d+", text) else None
    except (ValueError, ZeroDivisionError, InvalidOperation):
        return None


def _squeeze(answer: str) -> str:
    return re.sub(r"\s+|\\left|\\right|\\[,;!]", "", answer).replace("dfrac", "frac").replace("tfrac", "frac")
