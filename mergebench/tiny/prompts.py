"""The text that a model sees for each kind of row: the same strings as the benchmarks' lm-eval tasks, and the wrapper.

The choice benchmarks use the cloze formulation. Everything is shown inside the alpaca wrapper, which is also the
tokenizer's chat template.
"""

from __future__ import annotations

WRAPPER = "### Instruction:\n{prompt}\n\n### Response:\n"

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ '### Instruction:\n' + message['content'] + '\n\n### Response:\n' }}{% endif %}"
    "{% endfor %}"
)


def wrap(prompt: str) -> str:
    """The prompt inside the alpaca wrapper, without `<bos>`."""
    return WRAPPER.format(prompt=prompt)


def spaced(answer: str) -> str:
    """The answer behind the space with which lm-eval begins every choice and every short target."""
    return " " + answer


def gsm8k(question: str) -> str:
    return f"Q: {question}\nA:"


def math(problem: str) -> str:
    return f"Problem: {problem}\nSolution:"


def cloze(question: str) -> str:
    """m_mmlu, mmlu and mmlu_stem: the choices are scored as continuations and never shown."""
    return f"{question}\nAnswer:"


def arc(question: str) -> str:
    """m_arc and triviaqa."""
    return f"Question: {question}\nAnswer:"


def mbppplus(text: str, first_test: str) -> str:
    return f'"""\n{text}\n{first_test}\n"""\n'


def conala(intent: str) -> str:
    return f"{intent}\n"


def squadv2(title: str, context: str, question: str) -> str:
    return f"Title: {title}\n\nBackground: {context}\n\nQuestion: {question}\n\nAnswer:"


def coqa(story: str, questions: list[str], answers: list[str]) -> str:
    """The story and its turns; `answers` holds one answer for each question but the last."""
    turns = "".join(f"Q: {q}\n\nA: {a}\n\n" for q, a in zip(questions, answers, strict=False))
    return f"{story}\n\n{turns}Q: {questions[-1]}\n\nA:"


def pubmedqa(context: str, question: str) -> str:
    return f"Abstract: {context}\nQuestion: {question}\nAnswer:"


def wmt14(source: str) -> str:
    return f"French phrase: {source}\nEnglish phrase:"
