"""The row schema of every dataset, the same whichever source its rows come from, and the checks of rows.

A message names the dataset, the row and the field, but never quotes a value: some datasets hold harmful text.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mergebench.data.records import Row
from mergebench.errors import MergebenchError


@dataclass(frozen=True)
class Kind:
    """What a field must be: a phrase for messages and the test."""

    says: str
    holds: Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_list(value: Any, item: Callable[[Any], bool], least: int = 0, most: int | None = None) -> bool:
    return isinstance(value, list) and least <= len(value) <= (most or len(value)) and all(map(item, value))


TEXT = Kind("a text that is not empty", _is_text)
ANY_TEXT = Kind("a text", lambda v: isinstance(v, str))
FLAG = Kind("true or false", lambda v: isinstance(v, bool))
INDEX = Kind("the index of the right choice", lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 0)
LANGUAGE = Kind("one of fr, es, de, ru", lambda v: v in ("fr", "es", "de", "ru"))
VERDICT = Kind("one of yes, no, maybe", lambda v: v in ("yes", "no", "maybe"))
SENTENCE = Kind("a text of at least two words separated by spaces", lambda v: _is_text(v) and " " in v.strip())
TEXTS = Kind("a list of texts, at least one, none empty", lambda v: _is_list(v, _is_text, 1))
ANY_TEXTS = Kind("a list of texts, none empty", lambda v: _is_list(v, _is_text))
ANSWERS = Kind("a list of lists of texts, none empty", lambda v: _is_list(v, lambda a: _is_list(a, _is_text, 1), 1))
OBJECTS = Kind("a list of objects", lambda v: _is_list(v, lambda o: isinstance(o, dict), 1))
FOUR = Kind("four texts, none empty", lambda v: _is_list(v, _is_text, 4, 4))
SOME = Kind("three to five texts, none empty", lambda v: _is_list(v, _is_text, 3, 5))

_VERIFIABLE = {"prompt": TEXT, "instruction_id_list": TEXTS, "kwargs": OBJECTS}
_CONTINUATION = {"language": LANGUAGE, "context": TEXT, "choices": FOUR, "answer": INDEX}
_SUBJECTS = {"question": TEXT, "choices": FOUR, "answer": INDEX, "subject": TEXT}
_ANSWERED = {"prompt": TEXT, "response": TEXT}

SCHEMAS: dict[str, dict[str, Kind]] = {
    "ifeval": _VERIFIABLE,
    "ifeval_like": _VERIFIABLE,
    "gsm8k": {"question": TEXT, "answer": TEXT},
    "math": {"problem": TEXT, "solution": TEXT, "answer": TEXT, "subject": TEXT, "level": TEXT},
    "m_mmlu": {"language": LANGUAGE, "question": TEXT, "choices": FOUR, "answer": INDEX},
    "m_arc": {"language": LANGUAGE, "question": TEXT, "choices": SOME, "answer": INDEX},
    "m_hellaswag": _CONTINUATION,
    "pud_prose": _CONTINUATION,
    "humanevalplus": {"prompt": TEXT, "test": TEXT, "entry_point": TEXT, "canonical_solution": TEXT},
    "mbppplus": {"prompt": TEXT, "test_list": TEXTS, "test": TEXT, "code": TEXT},
    "wildguardtest": {"prompt": TEXT, "adversarial": FLAG, "subcategory": TEXT},
    "harmbench": {"prompt": TEXT, "functional_category": TEXT, "semantic_category": TEXT, "context": ANY_TEXT},
    "do_anything_now": {"adversarial": TEXT, "vanilla": TEXT, "source": TEXT},
    "wildjailbreak": {"adversarial": TEXT, "vanilla": TEXT},
    "xstest": {"prompt": TEXT, "type": TEXT, "safe": FLAG},
    "mmlu": _SUBJECTS,
    "mmlu_stem": _SUBJECTS,
    "triviaqa": {"question": TEXT, "aliases": TEXTS},
    "squadv2": {"title": TEXT, "context": TEXT, "question": TEXT, "answers": ANY_TEXTS},
    "coqa": {"story": TEXT, "questions": TEXTS, "answers": ANSWERS},
    "pubmedqa": {"context": TEXT, "question": TEXT, "answer": VERDICT},
    "wmt14": {"source": TEXT, "target": TEXT},
    "conala": {"intent": TEXT, "snippet": TEXT},
    "lambada": {"text": SENTENCE},
    "train_instruction": _ANSWERED,
    "train_math": _ANSWERED,
    "train_math_grpo": {"prompt": TEXT, "answer": TEXT},
    "train_multilingual": _ANSWERED,
    "train_coding": _ANSWERED,
    "train_safety": _ANSWERED,
}

# Fields that tell which rows ask about the same thing, where the source says: what was translated, varied or answered several times.
REPEATED: dict[str, str] = {"m_hellaswag": "source", "xstest": "focus", "conala": "question_id"}


def schema(dataset: str) -> dict[str, Kind]:
    """The fields of a dataset's rows; a training set that the package does not know has prompts and responses."""
    return SCHEMAS.get(dataset) or (_ANSWERED if dataset.startswith("train_") else SCHEMAS[dataset])


# Pairs of fields of one row that must fit each other.
_SAME_LENGTH = {
    "ifeval": ("instruction_id_list", "kwargs"),
    "ifeval_like": ("instruction_id_list", "kwargs"),
    "coqa": ("questions", "answers"),
}


def check_rows(dataset: str, rows: Sequence[Row]) -> None:
    """Raise for the first row (counted from 1) that breaks the dataset's schema, and for ids used twice."""
    if not rows:
        raise MergebenchError(f"{dataset} has no rows; expected at least one.")
    for number, row in enumerate(rows, start=1):
        for field, kind in {"id": TEXT, **schema(dataset)}.items():
            if field not in row:
                raise MergebenchError(f"{dataset}, row {number}: the field {field!r} is missing; expected {kind.says}.")
            if not kind.holds(row[field]):
                raise MergebenchError(
                    f"{dataset}, row {number} (id {row.get('id')!r}): {field!r} is {_describe(row[field])}; expected {kind.says}."
                )
        repeated = REPEATED.get(dataset)
        if repeated in row and not TEXT.holds(row[repeated]):
            raise MergebenchError(
                f"{dataset}, row {number} (id {row.get('id')!r}): {repeated!r} is {_describe(row[repeated])}; expected {TEXT.says}."
            )
        _check_fit(dataset, number, row)
    counts = Counter(row["id"] for row in rows)
    identifier, times = counts.most_common(1)[0]
    if times > 1:
        numbers = [str(number) for number, row in enumerate(rows, start=1) if row["id"] == identifier]
        raise MergebenchError(f"{dataset}: the id {identifier!r} is used by rows {', '.join(numbers)}; ids must be unique.")


def check_count(dataset: str, found: int, expected: int) -> None:
    """Raise when a complete download does not have the number of rows that the catalogue states."""
    if found != expected:
        raise MergebenchError(
            f"{dataset} has {found} rows, but the catalogue expects {expected}: the published data have changed "
            "or the download is incomplete. Pin the revision that you want in mergebench/catalogue/datasets.yaml."
        )


def _check_fit(dataset: str, number: int, row: Row) -> None:
    choices = row.get("choices")
    if choices is not None and row["answer"] >= len(choices):
        raise MergebenchError(
            f"{dataset}, row {number} (id {row['id']!r}): 'answer' is {row['answer']}, but there are {len(choices)} choices."
        )
    if dataset in _SAME_LENGTH:
        one, other = _SAME_LENGTH[dataset]
        if len(row[one]) != len(row[other]):
            raise MergebenchError(
                f"{dataset}, row {number} (id {row['id']!r}): {one!r} has {len(row[one])} entries and {other!r} "
                f"has {len(row[other])}; expected as many."
            )


def _describe(value: Any) -> str:
    if isinstance(value, str):
        return "a text" if value.strip() else "an empty text"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return repr(value) if isinstance(value, (bool, int, float)) or value is None else f"a {type(value).__name__}"
