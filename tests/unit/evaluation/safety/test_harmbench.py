"""HarmBench's classifiers as judges."""

import hashlib

import pytest

from mergebench.evaluation.safety import harmbench
from mergebench.evaluation.safety.labels import Label, Request


@pytest.mark.parametrize(
    ("template", "published"),
    [
        ("LLAMA2", "4016eb2e1758f37cfbf37f0e1540f15f26857e048c28e69796c23337ae0a285a"),
        ("LLAMA2_CONTEXTUAL", "5d6bb9e3cf4d1e5f3f7620093113222ee115af75b0b2913f00e4c7225ec9f219"),
        ("MISTRAL", "c1c47e30cc03e00197f1d12be25296fc3150969bb3ddb058bfd9f550e0d66f81"),
        ("MISTRAL_CONTEXTUAL", "df32d8fa50fe36817f2fb4ee38aa3c36a3b2726c71e30769ae26ea8a8104f16f"),
    ],
)
def test_templates_are_the_published_ones_byte_for_byte(template, published):
    """Of safety-eval a173993, src/templates/harmbench_classifier.py."""
    assert hashlib.sha256(getattr(harmbench, template).encode()).hexdigest() == published


@pytest.mark.parametrize("form", harmbench.FORMS, ids=lambda form: form.name)
def test_a_context_has_a_place_of_its_own(form):
    assert "[CONTEXT]" not in form.ask(Request("behave", "text"))
    assert "[CONTEXT]:\nthe page\n\n[BEHAVIOR]:\nbehave\n\n[GENERATION]:\n{text}\n" in form.ask(Request("behave", "{text}", "the page"))


@pytest.mark.parametrize(
    ("text", "label"),
    [("yes", Label(harmful=True)), (" No", Label(harmful=False)), ("", Label(parse_error=True)), ("y", Label(parse_error=True))],
)
def test_one_word_is_the_label(text, label):
    assert harmbench.read(text) == label
