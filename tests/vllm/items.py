"""Requests as benchmarks make them, some hundred of each type, from the rows of the tiny twins."""

from collections.abc import Iterable
from typing import Any

from lm_eval.api.instance import Instance

from mergebench.tiny.generate import rows

COUNT = 80


def asked(kind: str, *arguments: Any) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0, metadata=("t", 0, 1))


def _block(dataset: str, seed: int, count: int) -> str:
    """Worked examples, longer than a block of the prefix cache and, with a question, than Gemma's sliding window."""
    return "".join(f"{row['question']}\n{'ABCD'[row['answer']]}. {row['choices'][row['answer']]}\n\n" for row in rows(dataset, count, seed))


def letters() -> list[Instance]:
    """320 choices of one token: 40 questions without and 40 with examples in front."""
    found = []
    for place, row in enumerate([*rows("m_mmlu", COUNT // 2, 1), *rows("mmlu", COUNT // 2, 2)]):
        choices = "".join(f"{letter}. {choice}\n" for letter, choice in zip("ABCD", row["choices"], strict=True))
        examples = _block("mmlu", 3, 3) if place % 2 else ""
        found += [asked("loglikelihood", f"{examples}{row['question']}\n{choices}Answer:", letter) for letter in "ABCD"]
    return found


def texts() -> list[Instance]:
    """320 choices of several tokens and of different lengths."""
    found = []
    for place, row in enumerate(rows("m_hellaswag", COUNT, 4)):
        examples = _block("mmlu", 5, 4) if place % 2 else ""
        found += [asked("loglikelihood", examples + row["context"], f" {choice}") for choice in row["choices"]]
    return found


def whole_texts() -> list[Instance]:
    """320 texts to be scored from their first token."""
    found = [row["text"] for row in rows("lambada", 160, 6)] + [row["source"] for row in rows("wmt14", 160, 7)]
    return [asked("loglikelihood_rolling", text) for text in found]


def prompts(**changes: Any) -> list[Instance]:
    """320 prompts with the limits and stop strings of three benchmarks."""
    settings: list[dict[str, Any]] = [
        {"until": ["Q:", "\n\n"], "max_gen_toks": 24},
        {"until": ["\n"], "max_gen_toks": 12},
        {"until": [], "max_gen_toks": 6},
    ]
    questions = [f"Q: {row['question']}\nA:" for row in rows("gsm8k", 160, 8)]
    questions += [f"French phrase: {row['source']}\nEnglish phrase:" for row in rows("wmt14", 160, 9)]
    return [asked("generate_until", text, {**settings[place % 3], "do_sample": False, **changes}) for place, text in enumerate(questions)]


def largest_difference(one: Iterable[float], other: Iterable[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))
