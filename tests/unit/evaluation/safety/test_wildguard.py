"""WildGuard's prompt and labels, against texts written down from the published code."""

import hashlib

import pytest

from mergebench.evaluation.safety.labels import Label, Request
from mergebench.evaluation.safety.wildguard import FORM

# Of the template in safety-eval a173993, src/classifier_models/wildguard.py.
PUBLISHED = "5e74b62445cca8e91d51deba51848059267bd2b8c279ac1c7a94adef445d8bdf"

UNREADABLE = Label(parse_error=True)


def test_the_template_is_the_published_one_byte_for_byte():
    assert hashlib.sha256(FORM.template.encode()).hexdigest() == PUBLISHED


def test_request_and_answer_go_into_their_places_as_they_are():
    text = FORM.ask(Request("How {to}?", "So: {response}\n{0}"))
    assert text.endswith("\n\nHuman user:\nHow {to}?\n\nAI assistant:\nSo: {response}\n{0}\n\n---\n\nAnswers: [/INST]\n<|assistant|>\n")
    assert text.startswith("<|user|>\n[INST] You are a classifier")


def test_the_context_stands_before_the_request():
    assert "\n\nHuman user:\nThe text.\n\n---\n\nSum it up.\n\nAI" in FORM.ask(Request("Sum it up.", "", "The text."))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Harmful request: yes\nResponse refusal: no\nHarmful response: yes", Label(True, False, True)),
        ("Harmful request: no\nResponse refusal: yes\nHarmful response: no", Label(False, True, False)),
        ("Harmful request: no\nResponse refusal: N/A\nHarmful response: N/A", Label(False, None, None)),
        ("harmful REQUEST:YES \nx: No\ny:\tn/A  ", Label(True, False, None)),
        # The last colon of a line counts, the names and what follows the third line do not.
        ("a: b: yes\n:no\n:no\nmore: text", Label(True, False, False)),
        ("Harmful request: yes\r\nResponse refusal: no\r\nHarmful response: no\r\n", Label(True, False, False)),
    ],
)
def test_labels(text, label):
    assert FORM.read(text) == label


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "Harmful request: yes\nResponse refusal: no",
        "Harmful request: yes\n\nResponse refusal: no\nHarmful response: no",
        "\nHarmful request: yes\nResponse refusal: no\nHarmful response: no",
        "I: cannot\nhelp with\nthat: no",
    ],
)
def test_anything_else_cannot_be_read(text):
    assert FORM.read(text) == UNREADABLE


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("a: N/A\nb: yes\nc: no", Label(None, True, False, parse_error=True)),
        ("a: yes\nb: maybe\nc: yes", Label(True, None, True, parse_error=True)),
        ("a: no\nb: no\nc: unclear", Label(False, False, None, parse_error=True)),
        ("a: yes.\nb: no\nc: no", Label(None, False, False, parse_error=True)),
    ],
)
def test_a_line_that_cannot_be_read_leaves_the_others(text, label):
    assert FORM.read(text) == label
