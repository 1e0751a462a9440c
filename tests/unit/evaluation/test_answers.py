"""Scorers of single documents: gold, rubbish and edge cases."""

import math

import pytest

from mergebench.evaluation import answers


@pytest.mark.parametrize(
    ("gold", "answer", "f1"),
    [
        ("in France", "in France", 1.0),
        ("in France", "The France!", 2 / 3),
        ("in France", "Spain", 0.0),
        ("", "", 1.0),
        ("", "something", 0.0),
        ("the", "", 1.0),
        ("a b b", "b b b", 0.8),
    ],
)
def test_token_f1_is_squads(gold, answer, f1):
    assert answers.token_f1(gold, answer) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("response", "outcome"),
    [(" william shakespeare", 1.0), ("Shakespeare!", 1.0), ("Shakespeare wrote it", 0.0), ("", 0.0), ("Marlowe", 0.0)],
)
def test_aliases_need_the_whole_answer(response, outcome):
    doc = {"aliases": ["William Shakespeare", "Shakespeare"]}
    assert answers.aliases(doc, [response])["exact_match"]["outcome"] == outcome


def test_span_keeps_the_probability_of_no_answer():
    doc = {"answers": ["in France", "France"]}
    found = answers.span(doc, [" France", (math.log(0.25), False)])["best_f1"]
    assert found == {
        "outcome": 1.0,
        "response": "France",
        "exact": 1.0,
        "no_answer_probability": pytest.approx(0.25),
        "answerable": True,
    }
    unanswerable = answers.span({"answers": []}, ["", (0.0, True)])["best_f1"]
    assert (unanswerable["outcome"], unanswerable["answerable"]) == (1.0, False)


def test_conversation_leaves_each_accepted_answer_out_in_turn():
    doc = {"answers": [["x"], ["a cat", "the red cat"]]}
    # Against the others: "red cat" scores 2/3 against "a cat" and 1 against "the red cat".
    assert answers.conversation(doc, ["red cat"])["f1"]["outcome"] == pytest.approx((1 + 2 / 3) / 2)
    single = {"answers": [["bread", "Bread"]]}
    assert answers.conversation(single, [" bread\nQ: more"])["f1"]["outcome"] == 1.0
    assert answers.conversation(single, [""])["f1"]["outcome"] == 0.0


def test_conversation_prompt_ends_with_the_last_question():
    doc = {"story": "Ann has a cat.", "questions": ["Who?", "What?"], "answers": [["Ann", "ann"], ["a cat"]]}
    assert answers.coqa_prompt(doc) == "Ann has a cat.\n\nQ: Who?\n\nA: Ann\n\nQ: What?\n\nA:"


def test_lambada_splits_at_the_last_space():
    doc = {"text": "She gave the key to Tom"}
    assert answers.lambada_context(doc) == "She gave the key to"
    assert answers.lambada_choices(doc) == ["Tom"]
    # As in lm-eval, line breaks before the last word belong to it.
    broken = {"text": "she saw the \n\nrecorder"}
    assert (answers.lambada_context(broken), answers.lambada_choices(broken)) == ("she saw the", ["\n\nrecorder"])
    assert answers.last_word(doc, [(-1.0, True)])["acc"]["outcome"] == 1.0


def test_snippet_scores_the_first_line():
    doc = {"snippet": "x[::-1]"}
    assert answers.snippet(doc, ["x[::-1]\nprint(x)"])["bleu"]["outcome"] == 1.0
    assert answers.snippet(doc, [""])["bleu"]["outcome"] == 0.0
