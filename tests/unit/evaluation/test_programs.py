"""From answers to programs: the ways in which models begin a function's body."""

import pytest

from mergebench.evaluation.code import programs
from tests.unit.evaluation.rows import ROWS

DOC = ROWS["humanevalplus"][0]


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
    ],
)
def test_bodies_in_every_form_become_the_function(answer):
    space = {}
    exec(programs.complete_function(DOC, answer), space)
    assert space["add"](2, 3) == 5


@pytest.mark.parametrize("answer", ["    return a - b", "", "zzqx", "    pass"])
def test_wrong_bodies_fail_their_tests(answer):
    with pytest.raises((AssertionError, NameError, SyntaxError, IndentationError)):
        exec(programs.complete_function(DOC, answer), {})


def test_mbpp_runs_the_plus_tests():
    doc = ROWS["mbppplus"][0]
    exec(programs.function_and_tests(doc, doc["code"]), {})
    with pytest.raises(AssertionError):
        exec(programs.function_and_tests(doc, "def double(x):\n    return 4 if x == 2 else 0"), {})


def test_several_samples_give_a_share():
    from mergebench.evaluation.aggregate import Item

    found = programs.function_body(DOC, [["    return a + b", "    return 0", "    return b + a", "zzqx"]])["pass@1"]
    item = Item("1", "", found.pop("outcome"), found.pop("response"), found)
    facts = programs.settle([item], timeout_seconds=5, allow_weak=True)
    assert item.outcome == 0.5
    assert item.extra["passed"] == [True, False, True, False]
    assert "programs" not in item.extra
    assert facts["timeout_seconds"] == 5
