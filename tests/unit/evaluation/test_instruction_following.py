"""IFEval's checkers: offline, reproducible, and honest about what they cannot check."""

import math
import random
import zipfile
from pathlib import Path

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
    monkeypatch.setattr(instruction_following, "_has_sentence_models", lambda: False)
    doc = {
        "prompt": "At least two sentences.",
        "instruction_id_list": ["length_constraints:number_sentences"],
        "kwargs": [{"num_sentences": 2, "relation": "at least"}],
    }
    for response in ("One. Two.", ""):
        found = scored(doc, response)
        assert math.isnan(found["outcome"])
        assert "punkt_tab" in found["unscorable"]


def archive(rows: Path, *, abbreviations: str = "dr") -> Path:
    """Sentence models of one abbreviation, as a fetch leaves them beside `rows`."""
    path = rows.parent / instruction_following.SENTENCE_MODELS
    path.parent.mkdir(parents=True)
    contents = {
        "abbrev_types.txt": abbreviations,
        "collocations.tab": "##number##\tinternational",
        "ortho_context.tab": "smith\t4",
        "sent_starters.txt": "he",
    }
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in contents.items():
            packed.writestr(f"punkt_tab/english/{name}", content + "\n")
    return path


@pytest.fixture
def fresh_nltk(monkeypatch):
    """NLTK without any data, and without what it and lm-eval have read before."""
    import nltk
    from lm_eval.tasks.ifeval import instructions_util

    caches = (nltk.tokenize._get_punkt_tokenizer, instructions_util._get_sentence_tokenizer)
    monkeypatch.setattr(nltk.data, "path", [])
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


SENTENCES = {
    "prompt": "At least two sentences.",
    "instruction_id_list": ["length_constraints:number_sentences"],
    "kwargs": [{"num_sentences": 2, "relation": "at least"}],
}
CAPITALS = {
    "prompt": "Two words in capitals.",
    "instruction_id_list": ["change_case:capital_word_frequency"],
    "kwargs": [{"capital_frequency": 2, "capital_relation": "at least"}],
}


def test_sentences_are_counted_with_the_models_that_were_fetched_with_the_rows(tmp_path, fresh_nltk):
    rows = tmp_path / "ifeval/rows.jsonl"
    assert "unscorable" in scored(SENTENCES, "He left. He came.")
    archive(rows)
    instruction_following.use_sentence_models(rows)
    outcomes = [scored(SENTENCES, text)["outcome"] for text in ("He left. He came.", "Dr. Smith left.", "One", "")]
    assert outcomes == [1.0, 0.0, 0.0, 0.0]
    assert [scored(CAPITALS, text)["outcome"] for text in ("AND now, HERE.", "AND here.")] == [1.0, 0.0]


def test_the_fetched_models_go_before_those_of_the_machine(tmp_path, fresh_nltk):
    import nltk

    for name, abbreviations in (("machine", "dr"), ("fetched", "left")):
        archive(tmp_path / name / "rows.jsonl", abbreviations=abbreviations)
        instruction_following.use_sentence_models(tmp_path / name / "rows.jsonl")
    assert scored(SENTENCES, "Dr. Smith left.")["outcome"] == 1.0  # ends at "Dr.", which these do not know
    assert len(nltk.data.path) == 2


def test_rows_without_models_change_nothing(tmp_path, fresh_nltk):
    import nltk

    instruction_following.use_sentence_models(tmp_path / "rows.jsonl")
    assert instruction_following.sentence_models(tmp_path / "rows.jsonl") == nltk.data.path == []


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
