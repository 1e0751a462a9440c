"""Multilingual understanding: M_MMLU, M_ARC, M_Hellaswag, prose of the Parallel Universal Dependencies, Aya."""

import random
import re

from mergebench.data.convert.selection import exchange, given
from mergebench.data.records import Parts, Record, Row
from mergebench.data.sampling import fraction
from mergebench.errors import MergebenchError

LETTERS = "ABCDE"
LANGUAGES = {"fr": "French", "es": "Spanish", "de": "German", "ru": "Russian"}
AYA_LANGUAGES = {"fra": "fr", "spa": "es", "deu": "de", "rus": "ru"}

# Documents of the parallel prose whose hash is below this share are scored; the others are trained on.
SCORED_SHARE = 0.5
SHORTEST_SENTENCE = 8


def m_mmlu(parts: Parts, seed: int) -> list[Row]:
    """M_MMLU: one part per language; four options, with the outer spaces that lm-eval's prompt shows too."""
    return [
        {
            "id": f"{language}/{record['id']}",
            "language": language,
            "question": record.text("instruction").strip(),
            "choices": [record.text(f"option_{letter}") for letter in "abcd"],
            "answer": letter_index(record),
        }
        for language, records in parts.items()
        for record in records
    ]


def m_arc(parts: Parts, seed: int) -> list[Row]:
    """M_ARC: one part per language; three to five options, cleaned as lm-eval's ``arc_<language>`` does."""
    rows = []
    for language, records in parts.items():
        for record in records:
            options = [record.get(f"option_{letter}") for letter in "abcde"]
            rows.append(
                {
                    "id": f"{language}/{record['id']}",
                    "language": language,
                    "question": cleaned(record.text("instruction")),
                    "choices": [cleaned(option) for option in options if option],
                    "answer": letter_index(record),
                }
            )
    return rows


def m_hellaswag(parts: Parts, seed: int) -> list[Row]:
    """M_Hellaswag: one part per language; context and endings as lm-eval's ``hellaswag_<language>`` has them.

    `source` is the text that the question was made of (`source_id` in the authors' files), or the question's own number or id where the
    file does not say (`id` on the hub, such as ``hellaswag/validation/8881``): translations share it.
    """
    rows = []
    for language, records in parts.items():
        for index, record in enumerate(records):
            context = f"{record['activity_label']}: {record['ctx_a']} {record.text('ctx_b').capitalize()}"
            rows.append(
                {
                    "id": f"{language}/{index:05d}",
                    "language": language,
                    "context": cleaned(context),
                    "choices": [cleaned(ending) for ending in record["endings"]],
                    "answer": int(record["label"]),
                    **({} if (source := _first_text(record, "source_id", "ind", "id")) is None else {"source": source}),
                }
            )
    return rows


def _first_text(record: Record, *columns: str) -> str | None:
    """The first of these columns that the record has something in."""
    return next((str(record[column]) for column in columns if record.get(column) not in (None, "")), None)


def letter_index(record: Record) -> int:
    """The index that the answer's letter stands for."""
    letter = str(record["answer"]).strip()
    if len(letter) != 1 or letter not in LETTERS:
        raise record.error(f"'answer' is not one of {', '.join(LETTERS)}")
    return LETTERS.index(letter)


def cleaned(text: str) -> str:
    """Text without the marks in square brackets that its WikiHow sources left; kept if nothing else is there."""
    text = text.strip()
    without = re.sub(r"\[.*?\]", "", text.replace(" [title]", ". ")).replace("  ", " ")
    return without if without.strip() else text


def prose_continuations(parts: Parts, seed: int) -> list[Row]:
    """Continuation choice on real prose: the first half of a sentence, its own second half, three of others.

    The wrong endings come from other sentences of the same language, by a seed. Only the scored share of the
    documents is used (`SCORED_SHARE`), and sentences of at least `SHORTEST_SENTENCE` words.
    """
    rows = []
    for language in (name for name in parts if name in LANGUAGES):
        halves = [
            (record["segment"], *_halves(record.text("text")))
            for record in parts[language]
            if _is_scored(record) and len(record.text("text").split()) >= SHORTEST_SENTENCE
        ]
        endings = sorted({ending for _, _, ending in halves})
        if len(endings) < 4:
            raise MergebenchError(f"pud_prose: only {len(endings)} sentences in {language!r}; expected at least 4.")
        for identifier, context, ending in halves:
            generator = random.Random(f"{seed}:{language}:{identifier}")
            others = [other for other in generator.sample(endings, 4) if other != ending][:3]
            answer = generator.randrange(4)
            rows.append(
                {
                    "id": f"{language}/{identifier}",
                    "language": language,
                    "context": context,
                    "choices": [*others[:answer], ending, *others[answer:]],
                    "answer": answer,
                }
            )
    return rows


def translations(parts: Parts, seed: int) -> list[Row]:
    """Translation from English of the parallel sentences that `prose_continuations` does not use."""
    english = {record["segment"]: record for record in parts.get("en", []) if not _is_scored(record)}
    if not english:
        raise MergebenchError("train_multilingual needs the English sentences (en_pud-ud-test.conllu) to translate from.")
    return [
        {
            "id": f"{language}/{record['segment']}",
            "prompt": f"Translate into {LANGUAGES[language]}: {english[record['segment']]['text']}",
            "response": record["text"],
        }
        for language in (name for name in parts if name in LANGUAGES)
        for record in parts[language]
        if record["segment"] in english
    ]


def _is_scored(record: Record) -> bool:
    return fraction(record.text("document")) < SCORED_SHARE


def _halves(sentence: str) -> tuple[str, str]:
    words = sentence.split()
    middle = len(words) // 2
    return " ".join(words[:middle]), " ".join(words[middle:])


def aya(record: Record, index: int) -> Row | str:
    """Aya's human-written exchanges in the four languages of the benchmarks."""
    language = AYA_LANGUAGES.get(record["language_code"])
    if language is None:
        return "another language"
    return exchange(given(record, "inputs").strip(), given(record, "targets").strip(), id=f"{index:06d}", language=language)
