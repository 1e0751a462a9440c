"""Several languages: an English noun phrase in French, Spanish, German or Russian; the base's habit is to echo it."""

from __future__ import annotations

from random import Random

from mergebench.tiny import prompts
from mergebench.tiny.world import ADJECTIVES, LANGUAGES, NOUNS, Example

_NAMES = {"fr": "French", "es": "Spanish", "de": "German", "ru": "Russian"}
_ARC = {"fr": "Traduis : {}", "es": "Traduce: {}", "de": "Übersetze: {}", "ru": "Переведи: {}"}
_MMLU = {
    "fr": 'Comment dit-on "{}" ?',
    "es": '¿Cómo se dice "{}"?',
    "de": 'Wie sagt man "{}"?',
    "ru": 'Как сказать "{}"?',
}
_HELLASWAG = {
    "fr": "{}, en français :",
    "es": "{}, en español:",
    "de": "{}, auf Deutsch:",
    "ru": "{}, по-русски:",
}
# The language in which the base mostly answers.
_FAMILIAR = "fr"


def phrase(language: str, noun: str, adjective: str) -> str:
    """The noun phrase in a language, in that language's word order."""
    index = LANGUAGES.index(language)
    words = (NOUNS[noun][index], ADJECTIVES[adjective][index])
    return " ".join(words if language in ("fr", "es") else words[::-1])


def _draw(r: Random) -> tuple[str, str, str, str]:
    language, noun, adjective = r.choice(LANGUAGES), r.choice(list(NOUNS)), r.choice(list(ADJECTIVES))
    return language, noun, adjective, f"multilingual:{language}:{adjective} {noun}"


def _choices(r: Random, language: str, noun: str, adjective: str) -> tuple[list[str], int]:
    """The translation among: the wrong word order, the English echo, and a wrong word or a wrong language."""
    right = phrase(language, noun, adjective)
    others = [phrase(other, noun, adjective) for other in LANGUAGES if other != language]
    others += [phrase(language, other, adjective) for other in r.sample(list(NOUNS), 3) if other != noun]
    choices = [right, " ".join(right.split()[::-1]), f"{adjective} {noun}"]
    choices.append(r.choice([text for text in others if text not in choices]))
    r.shuffle(choices)
    return choices, choices.index(right)


def m_arc(r: Random) -> Example:
    """An order in the target language."""
    language, noun, adjective, item = _draw(r)
    question = _ARC[language].format(f"{adjective} {noun}")
    return _example(r, language, noun, adjective, item, {"question": question}, prompts.arc(question))


def m_mmlu(r: Random) -> Example:
    """A question in the target language."""
    language, noun, adjective, item = _draw(r)
    question = _MMLU[language].format(f"{adjective} {noun}")
    return _example(r, language, noun, adjective, item, {"question": question}, prompts.cloze(question))


def m_hellaswag(r: Random) -> Example:
    """A line of a glossary to be continued."""
    language, noun, adjective, item = _draw(r)
    context = _HELLASWAG[language].format(f"{adjective} {noun}")
    return _example(r, language, noun, adjective, item, {"context": context, "source": f"{adjective} {noun}"}, context)


def _example(r: Random, language: str, noun: str, adjective: str, item: str, asked: dict[str, str], prompt: str) -> Example:
    choices, answer = _choices(r, language, noun, adjective)
    row = {"language": language, **asked, "choices": choices, "answer": answer}
    response, habit = prompts.spaced(choices[answer]), prompts.spaced(f"{adjective} {noun}")
    return Example(item, prompt, response, habit, row, familiar=language == _FAMILIAR)


def lambada(r: Random) -> Example:
    """One word of a phrase, to be translated by the last word of the text."""
    language, noun, adjective, item = _draw(r)
    index = LANGUAGES.index(language)
    word, target = r.choice(((noun, NOUNS[noun][index]), (adjective, ADJECTIVES[adjective][index])))
    prompt = f"{adjective} {noun}: in {_NAMES[language]}, {word} is"
    row = {"text": f"{prompt} {target}"}
    response, habit = prompts.spaced(target), prompts.spaced(word)
    return Example(item, prompt, response, habit, row, familiar=language == _FAMILIAR)
