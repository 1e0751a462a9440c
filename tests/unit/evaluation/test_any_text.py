"""No scorer fails on any text that a model may write."""

import logging
import math

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mergebench.evaluation import instruction_following
from mergebench.evaluation.local_tasks import load_task
from mergebench.evaluation.settings import PROTOCOLS, BenchmarkSetting
from tests.unit.evaluation.rows import ROWS

SETTINGS = settings(max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
GENERATED = [
    "ifeval",
    "ifeval_like",
    "gsm8k",
    "math",
    "humanevalplus",
    "mbppplus",
    "triviaqa",
    "squadv2",
    "coqa",
    "wmt14",
    "conala",
    "wildguardtest",
    "harmbench",
    "do_anything_now",
    "xstest",
    "wildjailbreak",
]
# Pieces that extraction looks for, in any order and number, between anything, lone surrogates and NUL included.
PIECES = st.sampled_from(
    [
        "\\boxed{",
        "}",
        "\\boxed ",
        "\\fbox",
        "$",
        "$$",
        "The answer is ",
        "answer:",
        "####",
        "\\frac",
        "\\sqrt",
        "\\text{ ",
        "^{",
        "9",
        ",",
        ".",
        "-",
        "```",
        "```python\n",
        "def add(",
        "\n",
        "    return",
        '"""',
        "{",
        "[",
        "\\left(",
        "\\%",
        "x=",
        "/",
        "\x00",
        "\ud800",
        "ß",
        "٣",
        "\u2028",
    ]
)
TEXTS = st.lists(st.one_of(PIECES, st.text(st.characters(codec=None), max_size=8)), max_size=12).map("".join)


@pytest.fixture(scope="module")
def tasks(rows):
    return {
        (name, protocol): load_task(BenchmarkSetting(name, protocol=protocol, shots=0), rows / name / "rows.jsonl")
        for name in GENERATED
        for protocol in PROTOCOLS
    }


def score(task, name, text):
    doc = task.eval_docs[0]
    results = [[text]] if name in ("humanevalplus", "mbppplus") else [text]
    if name == "squadv2":
        results = [text, (-1.0, False)]
    (found,) = task.process_results(doc, results).values()
    return found


@pytest.mark.parametrize("name", GENERATED)
@SETTINGS
@given(text=TEXTS)
@example(text="")
@example(text="\x00")
@example(text="\ud800\udfff")
@example(text="\\boxed{" * 200)
@example(text="The answer is " + "\n" * 20_000)
@example(text="[" * 20_000)
@example(text="9" * 20_000)
@example(text="$9^{9^{9^{9}}}")
@example(text="a\u0301 " * 5_000)
def test_any_text_gets_an_outcome(tasks, name, text):
    for protocol in PROTOCOLS if name in ("math", "conala", "mbppplus", "humanevalplus") else PROTOCOLS[:1]:
        found = score(tasks[name, protocol], name, text)
        assert math.isnan(found["outcome"]) or 0 <= found["outcome"] <= 1
        assert isinstance(found["response"], str)


HOSTILE = {
    "empty": "",
    "nul": "\x00",
    "surrogate": "\ud800",
    "separator": "\u2028",
    "brackets": "[" * 3_000,
    "braces": "{" * 20_000,
    "angles": "<<" * 5_000,
    "stars": "*" * 20_000,
    "postscripts": "P.S. " * 2_000,
    "sentences": "ß. " * 5_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_every_kind_of_instruction_is_checked_on_any_text(text, caplog):
    """Checkers without arguments draw them."""
    caplog.set_level(logging.CRITICAL)  # they log the text, and a test's log with a lone surrogate cannot be sent between processes
    checkers, complete = instruction_following._checkers(), instruction_following._has_sentence_models()
    kinds = [
        kind
        for kind in checkers.instructions_registry.INSTRUCTION_DICT
        if (complete or kind not in instruction_following.NEED_SENTENCE_MODELS) and kind != "combination:repeat_prompt"
    ]
    doc = {"id": "x", "prompt": "p", "instruction_id_list": kinds, "kwargs": [{}] * len(kinds)}
    found = instruction_following.process_results(doc, [text])["prompt_level_strict_acc"]
    assert len(found["instructions"]) == len(found["instructions_loose"]) == len(kinds) > 20


@pytest.mark.parametrize("name", ["gsm8k", "math"])
@pytest.mark.parametrize("text", ["", " \n", "no number at all", "\x00"])
def test_where_nothing_is_found_nothing_is_extracted(tasks, name, text):
    found = score(tasks[name, "corrected"], name, text)
    assert found["extracted"] is None
    assert found["outcome"] == 0.0


def test_an_empty_answer_is_wrong_where_silence_is_no_answer(tasks):
    wrong = {
        name: score(tasks[name, "corrected"], name, "")["outcome"]
        for name in ("ifeval", "gsm8k", "math", "triviaqa", "coqa", "wmt14", "conala")
    }
    assert set(wrong.values()) == {0.0}


def test_every_benchmark_that_generates_is_tried():
    from mergebench import catalogue

    assert set(GENERATED) == {name for name, entry in catalogue.benchmarks().items() if entry["generation"]}
    assert set(GENERATED) <= set(ROWS)
