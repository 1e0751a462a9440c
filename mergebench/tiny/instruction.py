"""Instruction following: write about a thing under one or two constraints that IFEval's checker can verify."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from mergebench.tiny.world import ADJECTIVES, NOUNS, Example

_ENDINGS = ("That is all.", "Good night.", "Any questions?")
_KEYWORDS = ("moon", "fish", "snow", "bread", "river", "chair")
_BULLETS = ("The {noun} is {adjective}.", "I like the {noun}.", "We see the {noun}.")

# A constraint gives its sentence in the prompt, its kwargs, and how it changes the response.
Constraint = tuple[str, str, dict[str, Any], Callable[[str], str]]


def _ending(r: Random, noun: str, adjective: str) -> Constraint:
    phrase = r.choice(_ENDINGS)
    return "startend:end_checker", f"End with: {phrase}", {"end_phrase": phrase}, lambda text: f"{text} {phrase}"


def _quotation(r: Random, noun: str, adjective: str) -> Constraint:
    return "startend:quotation", "Use double quotes around it.", {}, lambda text: f'"{text}"'


def _title(r: Random, noun: str, adjective: str) -> Constraint:
    return "detectable_format:title", "Add a <<title>>.", {}, lambda text: f"<<The {noun}>>\n{text}"


def _bullets(r: Random, noun: str, adjective: str) -> Constraint:
    count = r.choice((2, 3))
    lines = "\n".join("* " + line.format(noun=noun, adjective=adjective) for line in _BULLETS[:count])
    sentence = f"Use {count} bullet points."
    return "detectable_format:number_bullet_lists", sentence, {"num_bullets": count}, lambda text: lines


def _keywords(r: Random, noun: str, adjective: str) -> Constraint:
    word = r.choice(_KEYWORDS)
    added = f"I see the {word} too."
    return "keywords:existence", f"Use the word {word}.", {"keywords": [word]}, lambda text: f"{text} {added}"


def _postscript(r: Random, noun: str, adjective: str) -> Constraint:
    added = f"P.S. I like the {noun}."
    sentence = "Add a P.S. line."
    return (
        "detectable_content:postscript",
        sentence,
        {"postscript_marker": "P.S."},
        lambda text: f"{text}\n{added}",
    )


def _highlight(r: Random, noun: str, adjective: str) -> Constraint:
    return (
        "detectable_format:number_highlighted_sections",
        "Mark one *word*.",
        {"num_highlights": 1},
        lambda text: text.replace(adjective, f"*{adjective}*", 1),
    )


# In the order in which they are applied to the response: later ones wrap what earlier ones wrote.
_CONSTRAINTS = (_bullets, _highlight, _keywords, _ending, _postscript, _title, _quotation)
# A star counts as a bullet only at the start of a line and would count as a highlight; nothing may follow an ending.
_CONFLICTS = ({_bullets, _highlight}, {_bullets, _keywords}, {_bullets, _quotation}, {_ending, _postscript})
# What the base mostly does when asked.
_FAMILIAR = ("startend:end_checker",)


def ifeval(r: Random) -> Example:
    """A row of `ifeval` (and of its surrogate `ifeval_like`)."""
    noun, adjective = r.choice(list(NOUNS)), r.choice(list(ADJECTIVES))
    chosen = r.sample(_CONSTRAINTS, r.choice((1, 1, 2)))
    if set(chosen) in _CONFLICTS:
        chosen = chosen[:1]
    constraints = [make(r, noun, adjective) for make in _CONSTRAINTS if make in chosen]
    plain = f"The {noun} is {adjective}."
    response = plain
    for _, _, _, apply in constraints:
        response = apply(response)
    prompt = " ".join([f"Write about a {adjective} {noun}.", *(sentence for _, sentence, _, _ in constraints)])
    ids = [name for name, _, _, _ in constraints]
    row = {"prompt": prompt, "instruction_id_list": ids, "kwargs": [kwargs for _, _, kwargs, _ in constraints]}
    item = f"instruction:{adjective} {noun}:{'+'.join(ids)}"
    return Example(item, prompt, response, plain, row, familiar=ids[-1] in _FAMILIAR)
