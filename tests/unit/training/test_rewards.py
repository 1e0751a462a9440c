"""Extraction and comparison of answers, and the reward functions that TRL calls."""

import pytest

from mergebench.training import verifier
from mergebench.training.rewards import accuracy, accuracy_reward, anchored_answer, equivalent, extract_answer, format_reward


@pytest.mark.parametrize(
    "text",
    [
        "9+5=14, 4+7+1=12 #### 124",
        "So we add. The answer is 124.",
        "the final answer is: $124$",
        r"Hence \boxed{124}.",
        r"The answer is \boxed{124}.",
        "The answer is **124**.",
        "#### $124.00",
        "The answer is 124 apples.",
        "We get x = 7.\nThe answer is x = 124",
    ],
)
def test_every_form_that_sft_teaches_is_accepted(text):
    assert accuracy(text, "124") == 1.0
    assert anchored_answer(text)


@pytest.mark.parametrize("text", ["#### 125", "The answer is 12.", r"\boxed{-124}", "", "no number", "124 + 1 = 125"])
def test_wrong_answers_get_nothing(text):
    assert accuracy(text, "124") == 0.0


def test_an_unmarked_answer_counts_but_not_for_the_format():
    assert accuracy("there are 7 and then 124", "124") == 1.0
    assert format_reward(["there are 7 and then 124"]) == [0.0]


def test_text_after_the_marked_answer_does_not_replace_it():
    assert extract_answer("#### 12\nQ: what is 99?") == "12"


def test_nested_braces_are_read_to_their_end():
    assert extract_answer(r"so \boxed{\frac{1}{3}} holds") == r"\frac{1}{3}"


@pytest.mark.parametrize(
    ("found", "expected"),
    [(r"\frac{2}{6}", "1/3"), ("1,234", "1234"), ("0.50", "1/2"), ("50\\%", "50"), ("x^2+1", "1+x^2"), (r"\dfrac{1}{2}", r"\frac{1}{2}")],
)
def test_equal_values_in_different_dress(found, expected):
    assert equivalent(found, expected)


@pytest.mark.parametrize(("found", "expected"), [(r"\sqrt{5}", "5"), ("5x", "5"), ("1/0", "1"), ("x+1", "x-1")])
def test_different_values_stay_different(found, expected):
    assert not equivalent(found, expected)


def test_the_gold_answer_may_be_a_worked_solution():
    assert accuracy("The answer is 72.", "48/2 = 24. 48+24 = 72 #### 72") == 1.0


def test_rewards_take_conversational_completions():
    completions = [[{"role": "assistant", "content": "#### 3"}], [{"role": "assistant", "content": "4"}]]
    assert accuracy_reward(completions, answer=["3", "5"]) == [1.0, 0.0]
    assert format_reward(completions, answer=["3", "5"]) == [1.0, 0.0]


HOSTILE = {
    "a tower of powers": r"\boxed{9^{9^{9^9}}}",
    "a factorial": r"\boxed{(10^8)!}",
    "open braces": r"\boxed{" * 3000,
    "nested boxes": r"\boxed{" * 500 + "x" + "}" * 500,
    "a phrase and nothing": "the answer is" + "\n " * 20_000,
    "many phrases": "answer: " * 10_000,
    "a long number": "#### " + "1" * 100_000,
    "spaces": "####" + " " * 100_000 + "\n",
    "a division by zero": r"\boxed{\frac{1}{0}}",
    "no text at all": "",
    "surrogates and zeros": "#### \x00\ud800",
    "python": "#### __import__('os').system('true')",
    "a unit of spaces": "#### 5" + " " * 50_000 + "!",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_stops_the_reward(name, monkeypatch):
    monkeypatch.setattr(verifier, "SECONDS", 0.5)
    assert accuracy_reward([HOSTILE[name]], answer=[r"x^2+1"]) == [0.0]
    assert format_reward([HOSTILE[name]])[0] in (0.0, 1.0)


def test_the_verifier_answers_again_after_it_was_ended(monkeypatch):
    monkeypatch.setattr(verifier, "SECONDS", 0.5)
    assert not equivalent("9^{9^{9^9}}", "x")
    monkeypatch.undo()
    assert equivalent("x^2+1", "1+x^2")


def test_without_math_verify_expressions_are_compared_as_texts(monkeypatch):
    monkeypatch.setattr(verifier, "installed", lambda: False)
    assert equivalent("1/2", "0.5")
    assert equivalent(r"x ^ 2", "x^2")
    assert not equivalent("x^2+1", "1+x^2")
