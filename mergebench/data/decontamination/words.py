"""The words in which texts are compared, and which texts of a row those are."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

# Fields that make a benchmark's item what it is; labels, options and programs that test are left out.
_FIELDS: dict[str, tuple[str, ...]] = {
    "ifeval": ("prompt",),
    "ifeval_like": ("prompt",),
    "gsm8k": ("question", "answer"),
    "math": ("problem", "solution"),
    "m_mmlu": ("question",),
    "m_arc": ("question",),
    "humanevalplus": ("prompt", "canonical_solution"),
    "mbppplus": ("prompt", "code"),
    "wildguardtest": ("prompt",),
    "harmbench": ("prompt", "context"),
    "do_anything_now": ("adversarial", "vanilla"),
    "wildjailbreak": ("adversarial", "vanilla"),
    "xstest": ("prompt",),
    "mmlu": ("question",),
    "mmlu_stem": ("question",),
    "triviaqa": ("question",),
    "squadv2": ("context", "question"),
    "coqa": ("story", "questions"),
    "pubmedqa": ("context", "question"),
    "wmt14": ("source", "target"),
    "conala": ("intent", "snippet"),
    "lambada": ("text",),
}
_CONTINUED = ("m_hellaswag", "pud_prose")  # a context that its right ending goes on with
_NO_TEXT = ("id", "language")


def words(text: str) -> list[str]:
    """The words of a text, in the form in which spelling, case and punctuation do not count."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return re.findall(r"\w+", text.casefold())


def item_texts(dataset: str, row: Mapping[str, Any]) -> list[str]:
    """The texts of a benchmark's row. No n-gram spans two of them."""
    if dataset in _CONTINUED:
        return [f"{row['context']} {row['choices'][row['answer']]}"]
    fields = _FIELDS.get(dataset)
    return _texts(
        [row[field] for field in fields if field in row] if fields else [value for key, value in row.items() if key not in _NO_TEXT]
    )


def training_texts(row: Mapping[str, Any]) -> list[str]:
    """The texts of a training row: its prompt, input, response or answer."""
    return _texts([value for key, value in row.items() if key not in _NO_TEXT])


def _texts(values: list[Any]) -> list[str]:
    """Texts, and the texts of lists of them."""
    flat = (one for value in values for one in (value if isinstance(value, list) else [value]))
    return [one for one in flat if isinstance(one, str)]
