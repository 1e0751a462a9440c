"""From a model's answer to a program with its tests."""

import math
import re
import textwrap
from collections.abc import Sequence
from typing import Any

FENCE = re.compile(r"```(?:python|py)?\n(.*?)(?:```|\Z)", re.DOTALL)

Scored = dict[str, dict[str, Any]]


def unfenced(answer: str) -> str:
    """The first fenced block of an answer that has one, else the answer."""
    block = FENCE.search(answer)
    return block[1] if block else answer


def body(answer: str) -> str:
    """A completion as the indented body of a function.

    A model may continue with the line break, begin in column one, or indent all lines but the first.
    """
    lines = answer.rstrip().strip("\n").split("\n")
    if not lines[0].strip() or lines[0][0] in " \t":
        return "\n".join(lines)
    rest = [line for line in lines[1:] if line.strip()]
    if rest and all(line[0] in " \t" for line in rest) and not lines[0].rstrip().endswith(":"):
        return "\n".join(["    " + lines[0], *lines[1:]])
    return textwrap.indent("\n".join(lines), "    ")


def complete_function(doc: dict[str, Any], answer: str) -> str:
    """HumanEval+: prompt, completion and tests. An answer that repeats the whole function replaces the prompt's."""
    answer = unfenced(answer)
    prompt = doc["prompt"].strip()
    whole = re.search(rf"^def {re.escape(doc['entry_point'])}\b", answer, re.MULTILINE)
    written = f"{prompt}\n    pass\n\n{answer}" if whole else f"{prompt}\n{body(answer)}"
    return f"{written}\n\n{doc['test']}\n\ncheck({doc['entry_point']})\n"


def function_and_tests(doc: dict[str, Any], answer: str) -> str:
    """MBPP+: the function and the tests, plus tests included."""
    return f"{unfenced(answer)}\n\n{doc['test']}\n"


def _scored(programs: list[str], answers: Sequence[str]) -> Scored:
    return {"pass@1": {"outcome": math.nan, "response": answers[0], "programs": programs}}


def function_body(doc: dict[str, Any], results: Sequence[Sequence[str]]) -> Scored:
    """lm-eval's ``process_results`` for HumanEval+: the programs to run, one per sample."""
    return _scored([complete_function(doc, answer) for answer in results[0]], results[0])


def whole_function(doc: dict[str, Any], results: Sequence[Sequence[str]]) -> Scored:
    """lm-eval's ``process_results`` for MBPP+: the programs to run, one per sample."""
    return _scored([function_and_tests(doc, answer) for answer in results[0]], results[0])


def settle(items: list[Any], **settings: Any) -> dict[str, Any]:
    """Run the programs of a benchmark's items; an outcome is the share of its samples that pass (pass@1).

    Keyword arguments are those of `sandbox.run`. Returns what confined the programs.
    """
    from mergebench.evaluation.code import sandbox

    programs = [program for item in items for program in item.extra["programs"]]
    verdicts, facts = sandbox.run(programs, **settings)
    remaining = iter(verdicts)
    for item in items:
        own = [next(remaining) for _ in item.extra.pop("programs")]
        item.outcome = sum(verdict.passed for verdict in own) / len(own)
        item.extra |= {"passed": [v.passed for v in own], "reasons": [v.reason for v in own]}
    return facts
