"""GSM8K and MATH: find the final answer in a worked solution and compare it with the reference.

MATH's final answer is what the last ``\\boxed{}`` holds; without one, what follows the last "answer is"; without that, the last
formula. It is right if it equals the reference in Hendrycks' normal form, as a number, or
symbolically (math_verify). GSM8K's is read as in lm-eval's gsm8k_cot, by its two patterns.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

from mergebench.evaluation.verifier import Verifier

# Possessive, so that pages of blank lines behind it take no quadratic time.
ANSWER_IS = re.compile(r"answer\s*+(?:is|:)\s*+:?\s*+(.+)", re.IGNORECASE)
NUMBER = re.compile(r"[-+]?(\d+(,\d{3})*(\.\d*)?|\.\d+)")
DOLLARS = re.compile(r"\$([^$]+)\$")
BRACKETS = re.compile(r"(?<!\\)\\[()\[\]]")  # LaTeX's other marks of a formula; two backslashes are a line break

STRICT = re.compile(r"The answer is (\-?[0-9\.\,]+).")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
IGNORED = tuple(re.compile(pattern) for pattern in (",", r"\$", r"(?s).*#### ", r"\.$"))

Scored = dict[str, dict[str, Any]]


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
    text = BRACKETS.sub("$", text).replace("$$", "$")
    if inside := boxed(text):
        return inside, "boxed"
    if sentences := ANSWER_IS.findall(text):
        answer = sentences[-1].strip()
        if formulas := DOLLARS.findall(answer):
            return formulas[0].strip(), "sentence"
        if plain := re.split(r"\.(?:\s|$)|\n", answer)[0].strip(" \t*"):
            return plain, "sentence"
    if formulas := DOLLARS.findall(text):
        return formulas[-1].strip(), "formula"
    return None, "none"


@lru_cache(maxsize=1)
def _verifier() -> Verifier:
    return Verifier()


def normally_equal(answer: str, reference: str) -> bool:
    """Whether two answers have the same normal form of Hendrycks et al. 2021."""
    from lm_eval.tasks.hendrycks_math.utils import is_equiv

    return bool(is_equiv(answer, reference))


def equivalent(answer: str, reference: str) -> bool:
    """Whether two answers mean the same."""
    if normally_equal(answer, reference):
        return True
    left, right = (NUMBER.fullmatch(text.strip().strip("$").strip()) for text in (answer, reference))
    if left and right:
        return Decimal(left[0].replace(",", "")) == Decimal(right[0].replace(",", ""))
    return bool(answer) and _verifier().equal(f"${reference}$", f"${answer}$")


def process_results(doc: dict[str, Any], results: Sequence[str]) -> Scored:
    """MATH, as lm-eval's ``process_results``: 1 if the final answer is equivalent to the row's answer.

    Kept per item: ``math_verify`` (lm-eval's minerva_math key of that name: math_verify on the whole texts), ``exact_match_boxed`` (the
    boxed answer, in Hendrycks' normal form) and ``exact_match_hendrycks`` (lm-eval's hendrycks_math).
    """
    response = results[0]
    answer, found = final_answer(response)
    in_box = found == "boxed" and answer is not None and normally_equal(answer, doc["answer"])
    return {
        "equivalent": {
            "outcome": float(answer is not None and equivalent(answer, doc["answer"])),
            "response": response.strip(),
            "extracted": answer,
            "found": found,
            "math_verify": float(_verifier().equal(doc["solution"], response)),
            "exact_match_boxed": float(in_box),
            "exact_match_hendrycks": _hendrycks(doc, response),
        }
    }


def hendrycks(doc: dict[str, Any], results: Sequence[str]) -> Scored:
    """MATH as lm-eval's hendrycks_math: what stands between the first and the last dollar sign, in Hendrycks' normal form.

    It cannot read a worked solution, which has more than one formula, and scores models near 0.
    """
    extracted = between_dollars(results[0])
    return {
        "exact_match": {
            "outcome": float(normally_equal(extracted, doc["answer"])),
            "response": results[0].strip(),
            "extracted": extracted or None,
        }
    }


def between_dollars(text: str) -> str:
    """The text between the first and the last dollar sign, or the whole where there are not two."""
    first, last = text.find("$"), text.rfind("$")
    return text[first + 1 : last] if first < last else text


def _hendrycks(doc: dict[str, Any], response: str) -> float:
    return float(normally_equal(between_dollars(response), doc["answer"]))


def word_problem(doc: dict[str, Any], results: Sequence[str]) -> Scored:
    """GSM8K as lm-eval's gsm8k_cot: the answer's last number (flexible-extract, the outcome), or that of "The answer is" (strict-match)."""
    target = doc["answer"].split("####")[-1].strip()
    strict, flexible = _first(STRICT.findall(results[0])), _last(FLEXIBLE.findall(results[0]))
    outcomes = {name: _same_number(found, target) for name, found in (("strict-match", strict), ("flexible-extract", flexible))}
    return {
        "exact_match": {
            "outcome": outcomes["flexible-extract"],
            "response": results[0].strip(),
            "extracted": flexible,
            **{f"exact_match,{name}": outcome for name, outcome in outcomes.items()},
        }
    }


def _first(found: list[str]) -> str | None:
    return found[0].strip() if found else None


def _last(found: list[tuple[str, str]]) -> str | None:
    return next(group for group in found[-1] if group).strip() if found else None


def _same_number(found: str | None, target: str) -> float:
    return float(found is not None and _bare(found) == _bare(target))


def _bare(text: str) -> str:
    """A number without thousands separators, dollar signs and a final full stop, as the metric of gsm8k_cot ignores them."""
    for pattern in IGNORED:
        text = pattern.sub("", text)
    return text.lower()
