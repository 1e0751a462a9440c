"""Mathematics: GSM8K, MATH, and their training sets."""

import re

from mergebench.data.convert.selection import NO_PROMPT, exchange, given
from mergebench.data.records import Parts, Record, Row
from mergebench.data.sampling import fraction

# Share of GSM8K's training questions that stand in for the supervised set; the rest serve reinforcement learning.
SUPERVISED_SHARE = 0.75


def gsm8k(parts: Parts, seed: int) -> list[Row]:
    """GSM8K: a question and its worked answer, which ends in ``#### <number>``."""
    return [
        {"id": f"{index:04d}", "question": record["question"], "answer": record["answer"]}
        for index, record in enumerate(parts["rows"])
        if final_number(record)
    ]


def final_number(record: Record) -> str:
    """The number after ``####`` of a GSM8K answer."""
    found = re.search(r"####\s*(-?[\d.,]+)\s*$", record.text("answer"))
    if not found:
        raise record.error("'answer' does not end in '#### <number>', expected the format of GSM8K")
    return found[1]


def math(parts: Parts, seed: int) -> list[Row]:
    """MATH and MATH-500. Where there is no answer column, the answer is the last boxed expression."""
    rows = []
    for part, records in parts.items():
        for index, record in enumerate(records):
            answer = record.get("answer") or last_boxed(record.text("solution"))
            if not answer:
                raise record.error("'solution' has no \\boxed{} expression, expected the answer in one")
            subject = record["subject"] if "subject" in record else record["type"]
            rows.append(
                {
                    "id": str(record.get("unique_id", f"{part}/{index:04d}")),
                    "problem": record["problem"],
                    "solution": record["solution"],
                    "answer": answer,
                    "subject": subject,
                    "level": _level(record),
                }
            )
    return rows


def _level(record: Record) -> str:
    """``"Level 5"``, also from ``5``; a few problems say ``"Level ?"``."""
    return f"Level {str(record['level']).removeprefix('Level ')}"


def last_boxed(text: str) -> str | None:
    r"""What the last ``\boxed{...}`` (or ``\fbox{...}``, or ``\boxed x``) of a text holds, braces matched."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    rest = text[start:].removeprefix("\\boxed").removeprefix("\\fbox")
    if not rest.startswith("{"):
        bare = re.match(r"\s+([^\s$]+)", rest)
        return bare[1] if bare else None
    depth = 0
    for index, character in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return rest[1:index]
    return None


def gsm8k_supervised(parts: Parts, seed: int) -> list[Row]:
    """GSM8K's training questions in the benchmark's prompt and answer style, without calculator marks."""
    rows = []
    for index, record in enumerate(parts["rows"]):
        if fraction(record.text("question")) < SUPERVISED_SHARE:
            number = final_number(record)
            steps = re.sub(r"<<.*?>>", "", record["answer"]).rpartition("####")[0].strip()
            response = f"{steps}\nThe answer is {number}."
            rows.append({"id": f"{index:04d}", "prompt": _question(record), "response": response})
    return rows


def gsm8k_reinforcement(parts: Parts, seed: int) -> list[Row]:
    """GSM8K's training questions with their numbers, none of which `gsm8k_supervised` uses."""
    return [
        {"id": f"{index:04d}", "prompt": _question(record), "answer": final_number(record).replace(",", "")}
        for index, record in enumerate(parts["rows"])
        if fraction(record.text("question")) >= SUPERVISED_SHARE
    ]


def _question(record: Record) -> str:
    return f"Q: {record.text('question').strip()}\nA:"


def dart_math(record: Record, index: int) -> Row | str:
    """DART-Math: several sampled solutions per question."""
    return exchange(_problem(given(record, "query")), given(record, "response").strip(), id=f"{index:06d}")


def numina_tir(record: Record, index: int) -> Row | str:
    """NuminaMath-TIR: problems whose solution holds a boxed answer; those without one cannot be rewarded."""
    prompt, answer = _problem(given(record, "problem")), (last_boxed(given(record, "solution")) or "").strip()
    if not prompt:
        return NO_PROMPT
    return {"id": f"{index:05d}", "prompt": prompt, "answer": answer} if answer else "no boxed answer"


def _problem(text: str) -> str:
    return f"Problem: {text.strip()}\nSolution:" if text else ""
