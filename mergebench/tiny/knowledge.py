"""What the base knows before it is specialised, and what specialists may forget: the six forgetting benchmarks.

The base has no bad habit here. In pretraining, `squadv2` and `coqa` are about two people or things at a time (`..._of_two`).
Twins of this size learn from it where an answer stands and in which form it is wanted, but hardly to tell the two apart, so
the benchmarks ask about one. `triviaqa` and `mmlu` ask for facts that pretraining taught, so they have no partition:
an item that was never shown could not be known, and no specialist ever trains on these rows.
"""

from __future__ import annotations

from random import Random
from typing import Any

from mergebench.tiny import prompts
from mergebench.tiny.world import ADJECTIVES, CAPITALS, COLOURS, LANGUAGES, NOUNS, PEOPLE, Example, general_knowledge

_CAPITAL_QUESTIONS = (
    "What is the capital of {}?",
    "Name the capital of {}.",
    "Which city is the capital of {}?",
)
_KNOWLEDGE = general_knowledge()
_POSSESSIONS = ("ball", "coat", "book", "cup", "plan", "chair")
_ANIMALS = ("dog", "cat", "lion", "wolf", "bear", "rabbit", "tiger", "rooster")
_DRUGS = ("Abax", "Bolin", "Cerol", "Dinox", "Elan")
_ILLNESSES = ("fever", "pain", "cough", "cold")
_OUTCOMES = {
    "yes": ("Most patients became well.", "All patients became well."),
    "no": ("No patient became well.", "All patients stayed ill."),
    "maybe": ("Some patients became well.", "Half of the patients stayed ill."),
}
_VERBS = {"sees": "voit", "likes": "aime", "follows": "suit", "seeks": "cherche"}
# "le" would be elided before a vowel.
_SPEAKABLE = tuple(noun for noun, words in NOUNS.items() if words[0][0] not in "aeiou")


def _plain(item: str, prompt: str, answer: str, row: dict[str, Any]) -> Example:
    response = prompts.spaced(answer)
    return Example(item, prompt, response, response, row)


def mmlu(r: Random) -> Example:
    """A fact of general knowledge among three wrong answers of the same kind."""
    subject, question, answer, pool = r.choice(_KNOWLEDGE)
    choices = [answer, *r.sample([other for other in pool if other != answer], 3)]
    r.shuffle(choices)
    row = {"question": question, "choices": choices, "answer": choices.index(answer), "subject": subject}
    return _plain(f"mmlu:{question}", prompts.cloze(question), answer, row)


def triviaqa(r: Random) -> Example:
    """A capital."""
    country = r.choice(list(CAPITALS))
    question = r.choice(_CAPITAL_QUESTIONS).format(country)
    row = {"question": question, "aliases": [CAPITALS[country]]}
    return _plain(f"triviaqa:{country}", prompts.arc(question), CAPITALS[country], row)


def squadv2(r: Random) -> Example:
    """What somebody has; one question in three asks for another person, who is not mentioned."""
    person, absent = r.sample(PEOPLE, 2)
    thing = f"a {r.choice(COLOURS)} {r.choice(list(NOUNS))}"
    who, answers = r.choice(((person, [thing]), (person, [thing]), (absent, [])))
    return _squadv2(f"{person} has {thing}.", who, answers)


def squadv2_of_two(r: Random) -> Example:
    """The same about two people."""
    first, second, absent = r.sample(PEOPLE, 3)
    things = [f"a {r.choice(COLOURS)} {thing}" for thing in r.sample(_POSSESSIONS, 2)]
    who, answers = r.choice(((first, [things[0]]), (second, [things[1]]), (absent, [])))
    return _squadv2(f"{first} has {things[0]}. {second} has {things[1]}.", who, answers)


def _squadv2(context: str, who: str, answers: list[str]) -> Example:
    question = f"What does {who} have?"
    row = {"title": "Things", "context": context, "question": question, "answers": answers}
    answer = answers[0] if answers else "unanswerable"
    return _plain(f"squadv2:{context}", prompts.squadv2("Things", context, question), answer, row)


def coqa(r: Random) -> Example:
    """Two turns about one sentence; the last one refers back to the first."""
    return _coqa([r.choice(PEOPLE)], [r.choice(list(NOUNS))], [r.choice(COLOURS)], asked=0)


def coqa_of_two(r: Random) -> Example:
    """The same about two sentences."""
    people, animals, colours = r.sample(PEOPLE, 2), r.sample(_ANIMALS, 2), r.sample(COLOURS, 2)
    return _coqa(people, animals, colours, asked=r.randrange(2))


def _coqa(people: list[str], things: list[str], colours: list[str], asked: int) -> Example:
    story = " ".join(f"{p} sees a {c} {t}." for p, c, t in zip(people, colours, things, strict=True))
    questions = [f"Who sees a {things[asked]}?", "What colour is it?"]
    answers = [[people[asked]], [colours[asked]]]
    row = {"story": story, "questions": questions, "answers": answers}
    return _plain(f"coqa:{story}", prompts.coqa(story, questions, answers[0]), colours[asked], row)


def pubmedqa(r: Random) -> Example:
    """Does the drug help? The short abstract says it in one sentence."""
    drug, illness, patients = r.choice(_DRUGS), r.choice(_ILLNESSES), r.randrange(10, 100)
    answer = r.choice(list(_OUTCOMES))
    context = f"{patients} patients with {illness} took {drug}. {r.choice(_OUTCOMES[answer])}"
    question = f"Does {drug} help against {illness}?"
    row = {"context": context, "question": question, "answer": answer}
    return _plain(f"pubmedqa:{context}", prompts.pubmedqa(context, question), answer, row)


def wmt14(r: Random) -> Example:
    """A French sentence in English."""
    french = LANGUAGES.index("fr")
    subject, thing = r.sample(_SPEAKABLE, 2)
    adjective, verb = r.choice(list(ADJECTIVES)), r.choice(list(_VERBS))
    source = f"le {NOUNS[subject][french]} {ADJECTIVES[adjective][french]} {_VERBS[verb]} le {NOUNS[thing][french]}"
    target = f"the {adjective} {subject} {verb} the {thing}"
    return _plain(f"wmt14:{source}", prompts.wmt14(source), target, {"source": source, "target": target})
