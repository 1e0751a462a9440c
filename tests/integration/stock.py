"""Records as the hub has them, and the tasks that lm-eval makes of them itself, without the hub.

The records are our own, five or so per benchmark, with what has broken evaluations before: underscores, outer spaces, marks in square
brackets, options that are absent, aliases with stop characters, answers given twice. Where MERGEBENCH_REAL_DATA has a benchmark's
file, records are made from that too.
"""

import importlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import lm_eval
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from mergebench.data import readers
from mergebench.evaluation.instruction_following import NEED_SENTENCE_MODELS, _has_sentence_models

Records = list[dict[str, Any]]
THEIRS = Path(lm_eval.__file__).parent / "tasks"
REAL_ROWS = 40


def _letters(options: list[str | None]) -> dict[str, str | None]:
    return dict(zip(("option_a", "option_b", "option_c", "option_d", "option_e"), [*options, None, None], strict=False))


OWN: dict[str, dict[str, Records]] = {
    "m_arc": {
        "fr": [
            {
                "id": "1",
                "instruction": " Qu'est-ce qui est chaud ? ",
                **_letters(["la glace", " le feu", "la neige", "la pluie"]),
                "answer": "B",
            },
            {"id": "2", "instruction": "Choisissez [title] un  mot [x].", **_letters(["un [a] deux", "trois", "quatre"]), "answer": "A"},
            {"id": "3", "instruction": "Cinq ?", **_letters(["1", "2", "3", "4", "5"]), "answer": "E"},
        ],
        "ru": [{"id": "1", "instruction": "Что горячее?", **_letters(["лёд", "огонь", "снег", "дождь"]), "answer": "B"}],
    },
    "m_hellaswag": {
        "de": [
            {
                "activity_label": "Kochen",
                "ctx_a": "Sie nimmt den Topf.",
                "ctx_b": "die frau",
                "endings": ["kocht.", "singt [x].", "schläft.", " geht. "],
                "label": "0",
            },
            {
                "activity_label": "Haus [title] Garten",
                "ctx_a": "Ein  Mann [step] gräbt.",
                "ctx_b": "",
                "endings": ["a", "bb", "ccc", "dddd"],
                "label": "3",
            },
        ],
        "es": [{"activity_label": "Deporte", "ctx_a": "Corre.", "ctx_b": "ÉL", "endings": ["salta", "nada", "vuela", "cae"], "label": "1"}],
    },
    "m_mmlu": {
        "es": [
            {"id": "a/1", "instruction": "  ¿Capital de Francia?\n", **_letters([" Roma", "París ", "Berlín", "Madrid"]), "answer": "B"},
            {"id": "a/2", "instruction": "2 + 2", **_letters(["4", "5", "6", "7"]), "answer": "A"},
        ],
        "ru": [{"id": "a/1", "instruction": "Столица?", **_letters(["Киев", "Рим", "Минск", "Москва"]), "answer": "D"}],
    },
    "mmlu": {
        "anatomy": [
            {"question": "Which bone? ", "choices": ["ulna ", " tibia", "rib", "A"], "answer": 1, "subject": "anatomy"},
            {"question": "How many\nteeth?", "choices": ["32", "30", "28", "20"], "answer": 0, "subject": "anatomy"},
        ],
        "high_school_us_history": [
            {"question": "Who?", "choices": ["Adams", "Burr", "Clay", "Davis"], "answer": 3, "subject": "high_school_us_history"},
        ],
    },
    "gsm8k": {
        "": [
            {"question": "Tom has 3 pens and buys 4. How many?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"},
            {"question": "A box costs $1,200. Two?", "answer": "2,400 in all.\n#### 2,400"},
            {"question": "5 minus 8?", "answer": "#### -3"},
            {"question": "Half of 5?", "answer": "It is\n#### 2.5"},
        ]
    },
    "triviaqa": {
        "": [
            {
                "question_id": "q1",
                "question": "Who wrote Hamlet?",
                "answer": {"value": "Shakespeare", "aliases": ["William Shakespeare", "Shakespeare"]},
            },
            {
                "question_id": "q2",
                "question": "Which city has the Arch",
                "answer": {"value": "St. Louis", "aliases": ["St. Louis", "Saint Louis"]},
            },
            {
                "question_id": "q3",
                "question": 'Who sang "Help!"?',
                "answer": {"value": "The Beatles", "aliases": ["The Beatles", "Beatles"]},
            },
        ]
    },
    "squadv2": {
        "": [
            {
                "id": "1",
                "title": "Old_France",
                "context": "Paris is  old.",
                "question": " Where is it? ",
                "answers": {"text": ["in France", "France", "France"], "answer_start": [0, 3, 3]},
            },
            {
                "id": "2",
                "title": "Rome",
                "context": "Rome is old.",
                "question": "Who built it?",
                "answers": {"text": [], "answer_start": []},
            },
            {
                "id": "3",
                "title": "Rome",
                "context": "Rome is old.",
                "question": "How is Rome?",
                "answers": {"text": ["old"], "answer_start": [8]},
            },
            {
                "id": "4",
                "title": "Rome",
                "context": "Rome is big.",
                "question": "How red is Rome?",
                "answers": {"text": [], "answer_start": []},
            },
        ]
    },
    "coqa": {
        "": [
            {
                "id": "d1",
                "story": "Ann has a red cat.",
                "questions": {"input_text": ["Who?", "What?"]},
                "answers": {"input_text": ["Ann", "a cat"]},
                "additional_answers": {"0": {"input_text": ["ann", "the red cat"]}, "1": {"input_text": ["Ann", "A cat"]}},
            },
            {
                "id": "d2",
                "story": "Bob eats bread.",
                "questions": {"input_text": ["What does Bob eat?"]},
                "answers": {"input_text": ["bread"]},
                "additional_answers": {"0": {"input_text": ["Bread"]}, "1": {"input_text": ["some bread"]}},
            },
        ]
    },
    "pubmedqa": {
        "": [
            {"id": "11", "CONTEXTS": ["The drug helped.", "A lot."], "QUESTION": "Does it help?", "final_decision": "yes"},
            {"id": "12", "CONTEXTS": ["No effect."], "QUESTION": "Does it help?", "final_decision": "no"},
            {"id": "13", "CONTEXTS": ["Unclear."], "QUESTION": "Is it so?", "final_decision": "maybe"},
        ]
    },
    "wmt14": {
        "": [
            {"translation": {"fr": "Le chat est noir.", "en": "The cat is black, and it sleeps."}},
            {"translation": {"fr": "Il pleut.", "en": "It is raining today in the town."}},
            {"translation": {"fr": "Oui.", "en": "Yes."}},
        ]
    },
    "lambada": {"": [{"text": "She gave the key to Tom"}, {"text": "he saw the \n\nrecorder"}, {"text": "“ No , ” said Ann"}]},
    "ifeval": {
        "": [
            {"key": 1, "prompt": "Say hello.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
            {
                "key": 2,
                "prompt": "Trees.",
                "instruction_id_list": ["keywords:frequency"],
                "kwargs": [{"keyword": "tree", "frequency": 2, "relation": "at least"}],
            },
            {
                "key": 3,
                "prompt": "End.",
                "instruction_id_list": ["change_case:english_lowercase", "startend:end_checker"],
                "kwargs": [{}, {"end_phrase": "bye"}],
            },
            {
                "key": 4,
                "prompt": "Bullets.",
                "instruction_id_list": ["detectable_format:number_bullet_lists", "detectable_format:json_format"],
                "kwargs": [{"num_bullets": 2}, {}],
            },
            {"key": 5, "prompt": "Auf Deutsch.", "instruction_id_list": ["language:response_language"], "kwargs": [{"language": "de"}]},
        ]
    },
    "math": {
        "algebra": [
            {"problem": "Half of 1?", "solution": r"It is $\boxed{\frac{1}{2}}$.", "level": "Level 1", "type": "Algebra"},
            {"problem": "Where?", "solution": r"In $\boxed{[2,\infty)}$.", "level": "Level 2", "type": "Algebra"},
        ],
        "geometry": [{"problem": "Area?", "solution": r"So $\boxed{9\pi}$ and $x=1$.", "level": "Level 3", "type": "Geometry"}],
    },
}

# The first part of a real benchmark that is compared; each reads the authors' file into the hub's layout.
REAL: dict[str, Callable[[Path], dict[str, Records]]] = {
    "m_arc": lambda root: {
        path.stem.removesuffix("_test"): [{"option_d": None, "option_e": None, **r} for r in readers.read(path)]
        for path in sorted(root.glob("m_arc/??_test.json"))
    },
    "m_mmlu": lambda root: {path.stem.removesuffix("_val"): _plain(path) for path in sorted(root.glob("m_mmlu/??_val.json"))},
    "mmlu": lambda root: {subject: _subject(root, "test", subject) for subject in ("anatomy", "high_school_us_history", "virology")},
    "gsm8k": lambda root: {"": _plain(root / "gsm8k/test.jsonl")},
    "triviaqa": lambda root: {
        "": [
            {"question_id": r["id"], "question": r["question"], "answer": {"value": r["golden_answers"][0], "aliases": r["golden_answers"]}}
            for r in readers.read(root / "triviaqa/triviaqa_test_1k_subsample.jsonl")
            if not r["question"].startswith('"')  # some questions of this subsample are quoted as in CSV
        ]
    },
    "squadv2": lambda root: {
        "": [
            {
                "id": q["id"],
                "title": article["title"],
                "context": paragraph["context"],
                "question": q["question"],
                "answers": {"text": [a["text"] for a in q["answers"]], "answer_start": [a["answer_start"] for a in q["answers"]]},
            }
            for article in json.loads((root / "squad_v2/dev-v2.0.json").read_text())["data"]
            for paragraph in article["paragraphs"]
            for q in paragraph["qas"]
        ]
    },
    "coqa": lambda root: {"": [_dialogue(d) for d in json.loads((root / "coqa/coqa-dev-v1.0.excerpt.json").read_text())["data"]]},
    "pubmedqa": lambda root: {
        "": [
            {"id": key, **{name: article[name] for name in ("CONTEXTS", "QUESTION", "final_decision")}}
            for key, article in json.loads((root / "pubmedqa/ori_pqal.json").read_text()).items()
            if key in json.loads((root / "pubmedqa/test_ground_truth.json").read_text())
        ]
    },
    "wmt14": lambda root: {
        "": [
            {"translation": {"fr": fr["text"], "en": en["text"]}}
            for fr, en in zip(
                readers.read(root / "wmt14_fr-en/newstest2014-fren-src.fr.sgm"),
                readers.read(root / "wmt14_fr-en/newstest2014-fren-ref.en.sgm"),
                strict=True,
            )
        ]
    },
    "lambada": lambda root: {"": _plain(root / "lambada/lambada_test.jsonl")},
    "ifeval": lambda root: {
        "": [
            record
            for record in _plain(root / "ifeval/input_data.jsonl")
            # The two kinds that cannot be checked where NLTK's sentence models are absent.
            if NEED_SENTENCE_MODELS.isdisjoint(record["instruction_id_list"]) or _has_sentence_models()
        ]
    },
    "math": lambda root: {
        "geometry": [
            {"problem": r["problem"], "solution": r["solution"], "level": str(r["level"]), "type": r["subject"]}
            for r in readers.read(root / "math/math500_test.jsonl")
            if r["subject"] == "Geometry"
        ]
    },
}


def _plain(path: Path) -> Records:
    return [dict(record) for record in readers.read(path)]


def _subject(root: Path, split: str, subject: str) -> Records:
    table = readers.read(root / f"mmlu/{split}/{subject}_{split}.csv", ["question", "A", "B", "C", "D", "answer"])
    return [
        {"question": r["question"], "choices": [r[x] for x in "ABCD"], "answer": "ABCD".index(r["answer"]), "subject": subject}
        for r in table
    ]


def _dialogue(dialogue: dict[str, Any]) -> dict[str, Any]:
    def texts(turns: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
        return {"input_text": [turn["input_text"] for turn in turns]}

    extra = {key: texts(turns) for key, turns in (dialogue.get("additional_answers") or {}).items()}
    return {
        "id": dialogue["id"],
        "story": dialogue["story"],
        "questions": texts(dialogue["questions"]),
        "answers": texts(dialogue["answers"]),
        "additional_answers": extra,
    }


def worked_examples(root: Path | None, subject: str) -> Records:
    """MMLU's development rows of a subject: real, or five of our own."""
    if root is not None:
        return _subject(root, "dev", subject)
    return [{"question": f"Example {i}? ", "choices": [" w", "x", "y ", "z"], "answer": i % 4, "subject": subject} for i in range(5)]


# Task file below lm-eval's tasks, and the split that is scored.
FILES: dict[str, tuple[str, str]] = {
    "m_arc": ("okapi/arc_multilingual/arc_{part}.yaml", "test"),
    "m_hellaswag": ("okapi/hellaswag_multilingual/hellaswag_{part}.yaml", "val"),
    "m_mmlu": ("okapi/mmlu_multilingual/m_mmlu_{part}.yaml", "test"),
    "mmlu": ("mmlu/default/mmlu_{part}.yaml", "test"),
    "gsm8k": ("gsm8k/gsm8k-cot.yaml", "test"),
    "triviaqa": ("triviaqa/default.yaml", "validation"),
    "coqa": ("coqa/default.yaml", "validation"),
    "pubmedqa": ("pubmedqa/pubmedqa.yaml", "test"),
    "wmt14": ("translation/wmt14_fr-en.yaml", "test"),
    "lambada": ("lambada/lambada_openai.yaml", "test"),
    "ifeval": ("ifeval/ifeval.yaml", "train"),
    "math": ("hendrycks_math/hendrycks_math_{part}.yaml", "test"),
}


def task(benchmark: str, part: str, records: Records, *, shots: int | None = None, examples: Records | None = None) -> ConfigurableTask:
    """lm-eval's own task on these records."""
    tables = {"validation": datasets.Dataset.from_list(records)}
    if benchmark == "squadv2":
        tables["train"] = tables["validation"]
    else:
        file, split = FILES[benchmark]
        tables = {split: tables["validation"]}
        if examples is not None:
            tables["dev"] = datasets.Dataset.from_list(examples)

    class Offline:
        def download(self, *args: Any, **kwargs: Any) -> None:
            self.dataset = datasets.DatasetDict(tables)

    if benchmark == "squadv2":
        theirs = importlib.import_module("lm_eval.tasks.squadv2.task").SQuAD2
        made: ConfigurableTask = type("SQuAD2", (Offline, theirs), {})()
        made.set_config("task", "squadv2")
        return made
    config = load_yaml(THEIRS / file.format(part=part))
    absent = [key for key in ("training_split", "validation_split", "fewshot_split", "test_split") if config.get(key) not in tables]
    config |= dict.fromkeys(absent)
    if shots is not None:
        config["num_fewshot"] = shots
    return type("Stock", (Offline, ConfigurableTask), {})(config=config)
