"""General knowledge (forgetting) and language modelling: MMLU, TriviaQA, SQuAD v2, CoQA, PubMedQA, WMT14, LAMBADA."""

from typing import Any

from mergebench.data.convert.multilingual import letter_index
from mergebench.data.records import Parts, Record, Row

STEM_SUBJECTS = frozenset(
    {
        "abstract_algebra", "anatomy", "astronomy", "college_biology", "college_chemistry",
        "college_computer_science", "college_mathematics", "college_physics", "computer_security",
        "conceptual_physics", "electrical_engineering", "elementary_mathematics", "high_school_biology",
        "high_school_chemistry", "high_school_computer_science", "high_school_mathematics",
        "high_school_physics", "high_school_statistics", "machine_learning",
    }
)  # fmt: skip


def mmlu_tables(parts: Parts, seed: int) -> list[Row]:
    """MMLU as published: one table per subject (``<subject>_test.csv``) with columns question, A-D, answer.

    Choices keep the outer spaces that some have: lm-eval's prompt shows them.
    """
    return [
        {
            "id": f"{part.removesuffix('_test')}/{index:04d}",
            "question": record.text("question").strip(),
            "choices": [record.text(letter) for letter in "ABCD"],
            "answer": letter_index(record),
            "subject": _title(part.removesuffix("_test").removesuffix("_dev")),
        }
        for part, records in parts.items()
        for index, record in enumerate(records)
    ]


def mmlu(parts: Parts, seed: int) -> list[Row]:
    """MMLU and MMLU-STEM as one table with a subject column (also called ``type``)."""
    return [
        {
            "id": f"{_subject(record)}/{index:05d}",
            "question": record.text("question").strip(),
            "choices": [str(choice) for choice in record["choices"]],
            "answer": record["answer"],
            "subject": _title(_subject(record)),
        }
        for index, record in enumerate(parts["rows"])
    ]


def mmlu_stem(parts: Parts, seed: int) -> list[Row]:
    """The 19 subjects that lm-eval counts as STEM."""
    return mmlu({"rows": [record for record in parts["rows"] if _subject(record) in STEM_SUBJECTS]}, seed)


def _subject(record: Record) -> str:
    subject = record["subject"] if "subject" in record else record["type"]
    return str(subject)


def _title(subject: str) -> str:
    return subject.replace("_", " ")


def triviaqa(parts: Parts, seed: int) -> list[Row]:
    """TriviaQA without context: a question and every accepted spelling of its answer."""
    return [
        {
            "id": str(record["question_id"]),
            "question": record["question"],
            "aliases": list(dict.fromkeys([record["answer"]["value"], *record["answer"]["aliases"]])),
        }
        for record in parts["rows"]
    ]


def triviaqa_subsample(parts: Parts, seed: int) -> list[Row]:
    """The 1,000-question subsample, which has `golden_answers`, and CSV quoting left in some questions."""
    return [
        {"id": record["id"], "question": _unquoted(record.text("question")), "aliases": list(record["golden_answers"])}
        for record in parts["rows"]
    ]


def _unquoted(question: str) -> str:
    inner = question[1:-1].replace('""', "\0")
    is_csv_field = len(question) > 1 and question[0] == question[-1] == '"' and '"' not in inner
    return inner.replace("\0", '"') if is_csv_field else question


def squad_articles(parts: Parts, seed: int) -> list[Row]:
    """SQuAD 2.0 as published: articles of paragraphs of questions. Repeated answers are given once; titles keep their underscores."""
    return [
        {
            "id": question["id"],
            "title": article["title"],
            "context": paragraph["context"],
            "question": question["question"],
            "answers": list(dict.fromkeys(answer["text"] for answer in question["answers"])),
        }
        for document in parts["rows"]
        for article in document["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


def squad_table(parts: Parts, seed: int) -> list[Row]:
    """SQuAD 2.0 as one table."""
    return [
        {
            "id": record["id"],
            "title": record["title"],
            "context": record["context"],
            "question": record["question"],
            "answers": list(dict.fromkeys(record["answers"]["text"])),
        }
        for record in parts["rows"]
    ]


def coqa(parts: Parts, seed: int) -> list[Row]:
    """CoQA, published as one document or as a table: per turn the answer and the additional annotators' answers."""
    rows = []
    for record in parts["rows"]:
        for dialogue in record.get("data", [record]):
            questions = _texts(dialogue["questions"])
            columns = [_texts(dialogue["answers"])]
            columns += [_texts(turns) for turns in (dialogue.get("additional_answers") or {}).values()]
            answers = [list(dict.fromkeys(filter(None, turn))) for turn in zip(*columns, strict=True)]
            identifier = str(dialogue["id"])
            rows.append({"id": identifier, "story": dialogue["story"], "questions": questions, "answers": answers})
    return rows


def _texts(turns: Any) -> list[str]:
    """The texts of the turns, given as a list of objects or as an object of columns."""
    return list(turns["input_text"]) if isinstance(turns, dict) else [turn["input_text"] for turn in turns]


def pubmedqa(parts: Parts, seed: int) -> list[Row]:
    """PubMedQA's labelled questions whose PubMed id is in the official test set."""
    (articles,), (truth,) = parts["articles"], parts["test"]
    rows = []
    for identifier, answer in truth.items():
        if identifier not in articles:
            raise truth.error(f"the question {identifier} is not in ori_pqal.json, expected the two files of one release")
        article = articles[identifier]
        rows.append(
            {
                "id": identifier,
                "context": "\n".join(article["CONTEXTS"]),
                "question": article["QUESTION"],
                "answer": answer,
            }
        )
    return rows


def wmt14_segments(parts: Parts, seed: int) -> list[Row]:
    """newstest2014 as published: French source and English reference segments, side by side."""
    sources, references = parts["source"], parts["reference"]
    if len(sources) != len(references):
        raise references[0].error(f"the reference has {len(references)} segments, expected {len(sources)} as the source")
    rows = []
    for source, reference in zip(sources, references, strict=True):
        identifier = f"{source['document']}/{source['segment']}"
        if identifier != f"{reference['document']}/{reference['segment']}":
            raise reference.error(f"this is not the translation of segment {identifier}, expected the source's order")
        rows.append({"id": identifier, "source": source["text"], "target": reference["text"]})
    return rows


def wmt14_table(parts: Parts, seed: int) -> list[Row]:
    """newstest2014 as a table of translation pairs."""
    return [
        {"id": f"{index:04d}", "source": record["translation"]["fr"], "target": record["translation"]["en"]}
        for index, record in enumerate(parts["rows"])
    ]


def lambada(parts: Parts, seed: int) -> list[Row]:
    """LAMBADA in OpenAI's version."""
    return [{"id": f"{index:04d}", "text": record.text("text").strip()} for index, record in enumerate(parts["rows"])]
