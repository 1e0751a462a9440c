"""MATH: find the final answer in a worked solution and compare it with the reference.

The final answer is what the last ``\\boxed{}`` holds; without one, what follows the last "answer is"; without that, the last
formula between dollar signs. It is right if it equals the reference in Hendrycks' normal form, as a number, or
symbolically (math_verify).
"""

import re
import threading
from collections.abc import Sequence
from typing import Any

ANSWER_IS = re.compile(r"answer\s*(?:is|:)\s*:?\s*(.+)", re.IGNORECASE)
NUMBER = re.compile(r"[-+]?(\d+(,\d{3})*(\.\d*)?|\.\d+)")
DOLLARS = re.compile(r"\$([^$]+)\$")


def boxed(text: str) -> str | None:
    """The content of the last ``\\boxed{}`` or ``\\fbox{}``, with nested braces, or None."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    rest = text[start:].partition("box")[2].removeprefix("ed")
    if rest.startswith(" "):
        return rest.strip().split("$")[0].strip() or None
    depth = 0
    for position, character in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return rest[1:position].strip() if position else None
    return None


def final_answer(text: str) -> tuple[str | None, str]:
    """The final answer and how it was found: boxed, sentence, formula or none."""
    text = text.replace("$$", "$")
    if (inside := boxed(text)) is not None:
        return inside, "boxed"
    if sentences := ANSWER_IS.findall(text):
        answer = sentences[-1].strip()
        if formulas := DOLLARS.findall(answer):
            return formulas[0].strip(), "sentence"
        return re.split(r"\.(?:\s|$)|\n", answer)[0].strip(), "sentence"
    if formulas := DOLLARS.findall(text):
        return formulas[-1].strip(), "formula"
    return None, "none"


def equivalent(answer: str, reference: str) -> bool:
    """Whether two answers mean the same."""
    from lm_eval.tasks.hendrycks_math.utils import is_equiv

    if is_equiv(answer, reference):
        return True
    left, right = (NUMBER.fullmatch(text.strip().strip("$").strip()) for text in (answer, reference))
    if left and right:
        return float(left[0].replace(",", "")) == float(right[0].replace(",", ""))
    return bool(answer) and _verified(answer, reference)


def _verified(answer: str, reference: str) -> bool:
    from math_verify import parse, verify

    # Its time limit is an alarm signal, which only the main thread can receive.
    limit: Any = 5 if threading.current_thread() is threading.main_thread() else None
    gold = parse(f"${reference}$", parsing_timeout=limit)
    given = parse(f"${answer}$", parsing_timeout=limit)
    return bool(verify(gold, given, timeout_seconds=limit))


def process_results(doc: dict[str, Any], results: Sequence[str]) -> dict[str, dict[str, Any]]:
    """lm-eval's ``process_results``: 1 if the final answer is equivalent to the row's answer."""
    answer, found = final_answer(results[0])
    right = answer is not None and equivalent(answer, doc["answer"])
    return {"equivalent": {"outcome": float(right), "response": results[0].strip(), "answer": answer, "found": found}}
