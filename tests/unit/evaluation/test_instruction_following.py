"""IFEval's checkers: offline, reproducible, and honest about what they cannot check."""

import math
import random

import pytest

from mergebench.evaluation import instruction_following
from mergebench.evaluation.instruction_following import process_results
from tests.instruction_oracle import follow
from tests.unit.evaluation.rows import ROWS


def scored(doc, response):
    return process_results({"id": "x", **doc}, [response])["prompt_level_strict_acc"]


@pytest.mark.parametrize("doc", ROWS["ifeval"], ids=lambda doc: doc["instruction_id_list"][0])
def test_gold_and_silence(doc):
    assert scored(doc, follow(doc))["outcome"] == 1.0
    assert scored(doc, "")["outcome"] == 0.0


def test_all_instructions_must_be_followed():
    doc = ROWS["ifeval"][2]
    found = scored(doc, "some words, then bye")
    assert (found["outcome"], found["instructions"]) == (1.0, [True, True])
    assert scored(doc, "some words, then Bye now")["instructions"] == [False, False]


def test_loose_forgives_an_introduction():
    doc = {"prompt": "End with bye.", "instruction_id_list": ["startend:end_checker"], "kwargs": [{"end_phrase": "bye"}]}
    found = scored(doc, "well bye\nI hope that helps")
    assert (found["outcome"], found["loose"]) == (0.0, 1.0)


def test_sentence_counts_are_unscorable_without_their_models(monkeypatch):
    checkers, _ = instruction_following._checkers()
    monkeypatch.setattr(instruction_following, "_checkers", lambda: (checkers, False))
    doc = {
        "prompt": "At least two sentences.",
        "instruction_id_list": ["length_constraints:number_sentences"],
        "kwargs": [{"num_sentences": 2, "relation": "at least"}],
    }
    for response in ("One. Two.", ""):
        found = scored(doc, response)
        assert math.isnan(found["outcome"])
        assert "punkt_tab" in found["unscorable"]


def test_importing_the_checkers_does_not_use_the_network():
    import subprocess
    import sys

    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = socket.create_connection = refuse\n"
        "from mergebench.evaluation.instruction_following import process_results\n"
        "print(process_results({'id': '1', 'prompt': 'p', 'instruction_id_list': ['punctuation:no_comma'], 'kwargs': [{}]}, ['x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{'prompt_level_strict_acc': {'outcome': 1.0")


def test_callers_random_numbers_are_left_alone():
    random.seed(7)
    expected = random.random()
    random.seed(7)
    # Without arguments the checker draws a keyword of its own.
    scored({"prompt": "p", "instruction_id_list": ["keywords:existence"], "kwargs": [{}]}, "text")
    assert random.random() == expected
