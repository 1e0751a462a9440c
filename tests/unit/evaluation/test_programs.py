"""From answers to programs, and from verdicts to outcomes."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergebench.evaluation.aggregate import Item
from mergebench.evaluation.code import programs
from tests.unit.evaluation.rows import ROWS

DOC = ROWS["humanevalplus"][0]
MBPP = ROWS["mbppplus"][0]


def functions(program):
    space = {}
    exec(program, space)
    return space


@pytest.mark.parametrize(
    "answer",
    [
        "    return a + b",
        "\n    return a + b",
        "\n\n    return a + b\n",
        "return a + b",
        "total = a\nreturn total + b",
        "total = a\n    return total + b",
        "if a:\n    return a + b\nreturn b + a",
        "def add(a, b):\n    return a + b",
        "Here it is:\n```python\ndef add(a, b):\n    return a + b\n```\nDone.",
        "```\n    return a + b\n```",
        "```py\ndef other():\n    pass\n```\nand\n```python\ndef add(a, b):\n    return a + b\n```",
        "  ```Python\n  def add(a, b):\n      return a + b\n  ```",
        "Sure! This is the function:\n\ndef add(a, b):\n    return a + b\n\nIt adds two numbers.\nAnd returns them.",
        'def add(a, b):\n    """Add two numbers."""\n    return a + b\n',
        "from operator import add as plus\n\ndef add(a, b):\n    return plus(a, b)",
        "add = lambda a, b: a + b",
        "```python\nreturn a + b",
    ],
)
def test_bodies_in_every_form_become_the_function(answer):
    assert functions(programs.complete_function(DOC, answer))["add"](2, 3) == 5


@pytest.mark.parametrize(
    "answer",
    [
        MBPP["code"],
        f"```python{MBPP['code']}```",
        f"You can do this:\n{MBPP['code']}\nThis doubles x.",
        f"```python{MBPP['code']}",
        f"Step 1.\n```\nx = 1\n```\nStep 2.\n```python{MBPP['code']}```",
        "    def double(x):\n        return 2 * x",
    ],
)
def test_whole_functions_are_found(answer):
    assert functions(programs.defined_function(MBPP, answer))["double"](4) == 8


def test_the_released_protocol_joins_prompt_and_answer_as_they_are():
    fenced = "```python\ndef double(x):\n  return 2 * x\n```"
    prompt = '"""\nWrite a function to double a number.\nassert double(2) == 4\n"""\n'
    assert programs.defined_function(MBPP, fenced, "released") == prompt + fenced
    assert programs.complete_function(DOC, "\n    return a", "released") == DOC["prompt"].strip() + "\n    return a"


def test_programs_share_the_imports_of_their_tests_and_nothing_else_of_them():
    (program,) = programs.prepare("mbppplus", MBPP, [MBPP["code"]])
    assert program["program"].rstrip().endswith("import numpy as np")
    assert "assert" not in program["program"]
    assert program["tests"] == MBPP["test"]
    (program,) = programs.prepare("humanevalplus", DOC, ["    return a + b"])
    assert DOC["test"] not in program["program"]
    assert program["entry"] == "add"


@pytest.mark.parametrize(
    ("assertion", "name"),
    [
        ("assert sum(10, 15) == 6", "sum"),
        ("assert set(similar((3, 4), (5, 4))) == set((4, 5))", "similar"),
        ("assert abs(f(2) - 1.5) < 1e-3", "f"),
        ("assert set(1) == 1", "set"),
        ("assert x == 1", ""),
        ("no Python", ""),
    ],
)
def test_the_name_that_tests_ask_for(assertion, name):
    assert programs.entry_name({"test_list": [assertion]}) == name


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=())) | st.text("`\n def(add):\\\"' \tpython#@\0", max_size=60))
def test_no_text_breaks_the_preparation(text):
    for benchmark, doc in (("humanevalplus", DOC), ("mbppplus", MBPP)):
        for protocol in ("corrected", "paper", "released"):
            (program,) = programs.prepare(benchmark, doc, [text], protocol)
            assert isinstance(program["program"], str)


@pytest.mark.parametrize(
    "text", ["", "\0", "\ud800", "(" * 100_000, "-" * 50_000 + "1", "```" * 10_000, "x\n" * 20_000, "def f(:\n" * 5_000]
)
def test_large_and_crooked_texts_are_prepared_at_once(text):
    assert len(programs.prepare("mbppplus", MBPP, [text])) == 1
    assert len(programs.prepare("humanevalplus", DOC, [text])) == 1


def test_pass_at_k_is_the_mean_over_all_choices_of_k_samples():
    for samples, passed, k in itertools.product(range(1, 7), range(7), range(1, 7)):
        if passed <= samples and k <= samples:
            outcomes = [True] * passed + [False] * (samples - passed)
            choices = [any(choice) for choice in itertools.combinations(outcomes, k)]
            assert programs.pass_at_k(samples, passed, k) == pytest.approx(sum(choices) / len(choices))


@pytest.mark.parametrize("k", [0, 3])
def test_pass_at_k_needs_k_samples(k):
    with pytest.raises(ValueError, match=f"pass@{k} of 2"):
        programs.pass_at_k(2, 1, k)


def test_several_samples_give_a_share_and_are_kept(tmp_path):
    found = programs.function_body(DOC, [["    return a + b", "    return 0", "    return b + a", "zzqx"]])["pass@1"]
    item = Item("1", "", found.pop("outcome"), found.pop("response"), found)
    assert math.isnan(item.outcome)
    facts = programs.settle([item], timeout_seconds=60, allow_weak=True, store=tmp_path / "verdicts.jsonl")
    assert item.outcome == 0.5
    assert item.extra["passed"] == [True, False, True, False]
    assert item.extra["reasons"][1].startswith("AssertionError")
    assert "programs" not in item.extra
    assert facts["timeout_seconds"] == 60
    assert len((tmp_path / "verdicts.jsonl").read_text().splitlines()) == 4


def test_the_plus_tests_decide_mbpp():
    right, wrong = MBPP["code"], "def double(x):\n    return 4 if x == 2 else 0"
    found = programs.whole_function(MBPP, [[right, wrong]])["pass@1"]
    item = Item("1", "", found.pop("outcome"), found.pop("response"), found)
    programs.settle([item], timeout_seconds=60, allow_weak=True)
    assert item.extra["passed"] == [True, False]
