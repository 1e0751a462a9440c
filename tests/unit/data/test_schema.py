"""Rows that break a schema are found, and named without quoting them."""

from collections.abc import Callable
from typing import Any

import pytest

from mergebench import catalogue
from mergebench.data.records import Row
from mergebench.data.schema import SCHEMAS, check_count, check_rows
from mergebench.errors import MergebenchError

GOOD: dict[str, Row] = {
    "m_arc": {"id": "1", "language": "fr", "question": "q", "choices": ["a", "b", "c"], "answer": 2},
    "m_mmlu": {"id": "1", "language": "fr", "question": "q", "choices": ["a", "b", "c", "d"], "answer": 2},
    "ifeval": {"id": "1", "prompt": "p", "instruction_id_list": ["x"], "kwargs": [{}]},
    "coqa": {"id": "1", "story": "s", "questions": ["q"], "answers": [["a"]]},
    "squadv2": {"id": "1", "title": "t", "context": "c", "question": "q", "answers": []},
    "xstest": {"id": "1", "prompt": "secret", "type": "t", "safe": True},
    "lambada": {"id": "1", "text": "two words"},
    "harmbench": {"id": "1", "prompt": "p", "functional_category": "f", "semantic_category": "s", "context": ""},
}


def test_every_dataset_of_the_catalogue_has_a_schema() -> None:
    assert set(SCHEMAS) == set(catalogue.datasets())


@pytest.mark.parametrize("dataset", GOOD)
def test_good_rows_pass(dataset: str) -> None:
    check_rows(dataset, [GOOD[dataset], {**GOOD[dataset], "id": "2", "more": "is allowed"}])


@pytest.mark.parametrize(
    ("dataset", "change", "message"),
    [
        ("m_arc", {"answer": 3}, r"row 2 \(id '2'\): 'answer' is 3, but there are 3 choices"),
        ("m_arc", {"answer": True}, r"'answer' is True; expected the index"),
        ("m_arc", {"answer": -1}, r"'answer' is -1"),
        ("m_arc", {"choices": ["a", " ", "c"]}, r"'choices' is a list of 3; expected three to five texts"),
        ("m_mmlu", {"choices": ["a", "b", "c"], "answer": 0}, r"expected four texts"),
        ("m_mmlu", {"language": "en"}, r"expected one of fr, es, de, ru"),
        ("ifeval", {"kwargs": [{}, {}]}, r"'instruction_id_list' has 1 entries and 'kwargs' has 2"),
        ("ifeval", {"kwargs": "[{}]"}, r"'kwargs' is a text; expected a list of objects"),
        ("coqa", {"answers": [[]]}, r"'answers' is a list of 1; expected a list of lists"),
        ("coqa", {"answers": [["a"], ["b"]]}, r"'questions' has 1 entries and 'answers' has 2"),
        ("squadv2", {"answers": None}, r"'answers' is None"),
        ("xstest", {"safe": 1}, r"'safe' is 1; expected true or false"),
        ("xstest", {"prompt": "\n "}, r"'prompt' is an empty text; expected a text that is not empty"),
        ("lambada", {"text": "word"}, r"expected a text of at least two words"),
        ("harmbench", {"context": None}, r"'context' is None; expected a text"),
        ("harmbench", {"id": 2}, r"'id' is 2"),
    ],
)
def test_a_bad_field_is_named_with_its_row(dataset: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(MergebenchError, match=message):
        check_rows(dataset, [GOOD[dataset], {**GOOD[dataset], "id": "2", **change}])


@pytest.mark.parametrize("dataset", GOOD)
def test_every_missing_field_is_found(dataset: str) -> None:
    for field in GOOD[dataset]:
        row = {key: value for key, value in GOOD[dataset].items() if key != field}
        with pytest.raises(MergebenchError, match=rf"{dataset}, row 1: the field '{field}' is missing"):
            check_rows(dataset, [row])


def test_an_id_used_twice_is_found() -> None:
    rows = [{**GOOD["xstest"], "id": i} for i in ("a", "b", "a")]
    with pytest.raises(MergebenchError, match=r"the id 'a' is used by rows 1, 3"):
        check_rows("xstest", rows)


def test_no_rows_are_an_error() -> None:
    with pytest.raises(MergebenchError, match="gsm8k has no rows"):
        check_rows("gsm8k", [])


def test_messages_do_not_quote_prompts() -> None:
    with pytest.raises(MergebenchError) as raised:
        check_rows("xstest", [{**GOOD["xstest"], "prompt": ["secret"]}])
    assert "secret" not in str(raised.value)


def test_a_wrong_count_says_what_was_expected() -> None:
    check_count("gsm8k", 1319, 1319)
    with pytest.raises(MergebenchError, match="gsm8k has 1318 rows, but the catalogue expects 1319"):
        check_count("gsm8k", 1318, 1319)


@pytest.mark.parametrize("dataset", sorted(catalogue.datasets()))
def test_the_miniature_files_of_every_dataset_give_rows_in_its_schema(dataset: str, rows: Callable[[str], list[Row]]) -> None:
    check_rows(dataset, rows(dataset))
