"""The loaders on the authors' real files: exact counts, and properties that only the full files can break."""

from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from lm_eval.tasks._yaml_loader import load_yaml

from mergebench import catalogue
from mergebench.data.convert.multilingual import LANGUAGES
from mergebench.data.records import Row, same_text
from mergebench.data.sampling import sample
from mergebench.data.schema import check_rows
from mergebench.data.sources import local
from mergebench.errors import MergebenchError
from mergebench.evaluation.clusters import cluster_of
from mergebench.evaluation.settings import TASKS

pytestmark = pytest.mark.real

COUNTS = {
    "ifeval": 541,
    "gsm8k": 1319,
    "math": 500,
    "m_mmlu": 1417 + 1465,
    "m_arc": 1169 + 1170,
    "humanevalplus": 164,
    "mbppplus": 378,
    "harmbench": 320,
    "do_anything_now": 300,
    "xstest": 450,
    "pud_prose": 1852,
    "mmlu": 14042,
    "triviaqa": 1000,
    "squadv2": 6078,  # half of the official 11,873: the other half is this publisher's own test set
    "coqa": 1,
    "pubmedqa": 500,
    "wmt14": 3003,
    "mmlu_stem": 3018,  # 3,153 without anatomy's 135
    "lambada": 5153,
    "conala": 500,
    "train_instruction": 1174,
    "train_math": 5584,
    "train_math_grpo": 1889,
    "train_multilingual": 2056,
    "train_coding": 2015,
}


@cache
def load(dataset: str, root: Path) -> tuple[Row, ...]:
    return tuple(local.load(dataset, catalogue.datasets()[dataset], root, seed=0).rows)


@pytest.mark.parametrize("dataset", COUNTS)
def test_counts_and_schema(dataset: str, real_folder: Path) -> None:
    rows = load(dataset, real_folder)
    assert len(rows) == COUNTS[dataset]
    check_rows(dataset, rows)


def test_datasets_that_are_not_in_the_folder_say_so(real_folder: Path) -> None:
    for dataset in sorted(set(catalogue.datasets()) - set(COUNTS)):
        with pytest.raises(MergebenchError, match="is not in the data folder"):
            load(dataset, real_folder)


def test_pubmedqa_has_the_official_answers(real_folder: Path) -> None:
    assert Counter(row["answer"] for row in load("pubmedqa", real_folder)) == {"yes": 276, "no": 169, "maybe": 55}


def test_xstest_has_250_safe_prompts(real_folder: Path) -> None:
    assert Counter(row["safe"] for row in load("xstest", real_folder)) == {True: 250, False: 200}


def test_harmbench_has_its_three_categories(real_folder: Path) -> None:
    kinds = Counter(row["functional_category"] for row in load("harmbench", real_folder))
    assert kinds == {"standard": 159, "contextual": 81, "copyright": 80}


def test_harmbench_has_its_seven_topics_and_a_context_where_one_is_needed(real_folder: Path) -> None:
    rows = load("harmbench", real_folder)
    sizes = sorted(Counter(row["semantic_category"] for row in rows).values())
    assert sizes == [18, 21, 42, 52, 53, 54, 80]
    assert {row["functional_category"] for row in rows if row["context"]} == {"contextual"}
    assert sum(bool(row["context"]) for row in rows) == 81


def test_xstest_has_18_types_of_25_prompts(real_folder: Path) -> None:
    assert set(Counter(row["type"] for row in load("xstest", real_folder)).values()) == {25}
    assert len({row["type"] for row in load("xstest", real_folder)}) == 18


@pytest.mark.parametrize(
    ("dataset", "clusters", "alone"),
    [("squadv2", 646, 0), ("conala", 364, 0), ("harmbench", 317, 0), ("do_anything_now", 300, 0), ("xstest", 147, 75), ("mmlu", 13_937, 0)],
)
def test_rows_that_ask_about_one_thing_are_known(dataset: str, clusters: int, alone: int, real_folder: Path) -> None:
    rows, metadata = load(dataset, real_folder), load_yaml(TASKS / f"{dataset}.yaml")["metadata"]
    found = [cluster_of(row, metadata) for row in rows]
    assert (len(set(found) - {""}), found.count("")) == (clusters, alone)
    names = [metadata["cluster_by"]] if isinstance(metadata["cluster_by"], str) else metadata["cluster_by"]
    assert len({str([row[name] for name in names]) for row in rows if all(map(row.get, names))}) == clusters


def test_squad_has_both_kinds_of_questions(real_folder: Path) -> None:
    assert sum(not row["answers"] for row in load("squadv2", real_folder)) == 3168


def test_mmlu_has_57_subjects_and_stem_18_of_them(real_folder: Path) -> None:
    subjects, stem = ({row["subject"] for row in load(name, real_folder)} for name in ("mmlu", "mmlu_stem"))
    assert (len(subjects), len(stem)) == (57, 18)
    assert stem < subjects


def test_m_arc_has_items_of_three_to_five_choices(real_folder: Path) -> None:
    assert {len(row["choices"]) for row in load("m_arc", real_folder)} == {3, 4, 5}


def test_twenty_items_cover_the_languages_and_no_subject_twice(real_folder: Path) -> None:
    prose = sample("pud_prose", load("pud_prose", real_folder), 20, seed=0)
    assert Counter(row["language"] for row in prose) == dict.fromkeys(LANGUAGES, 5)
    assert len({row["subject"] for row in sample("mmlu", load("mmlu", real_folder), 20, seed=0)}) == 20


def test_prose_answers_are_evenly_placed(real_folder: Path) -> None:
    places = Counter(row["answer"] for row in load("pud_prose", real_folder))
    assert all(0.2 < count / 1852 < 0.3 for count in places.values())


def test_training_and_scored_rows_share_no_text(real_folder: Path) -> None:
    scored = {same_text(f"Q: {row['question']}\nA:") for row in load("gsm8k", real_folder)}
    for dataset in ("train_math", "train_math_grpo"):
        assert not scored & {same_text(row["prompt"]) for row in load(dataset, real_folder)}
    prose = {same_text(f"{row['context']} {row['choices'][row['answer']]}") for row in load("pud_prose", real_folder)}
    assert not prose & {same_text(row["response"]) for row in load("train_multilingual", real_folder)}


def test_every_lambada_target_is_a_word(real_folder: Path) -> None:
    for row in load("lambada", real_folder):
        context, _, word = row["text"].rpartition(" ")
        assert context.strip()
        assert word.strip()


@pytest.mark.parametrize("dataset", ["humanevalplus", "mbppplus"])
def test_every_test_program_compiles(dataset: str, real_folder: Path) -> None:
    for row in load(dataset, real_folder):
        solution = row["prompt"] + row["canonical_solution"] if dataset == "humanevalplus" else row["code"]
        # The inputs make some tests megabytes of literals, which are slow to compile; their heads hold the statements.
        compile(f"{solution}\n", row["id"], "exec")
        if len(row["test"]) < 20_000:
            compile(row["test"], row["id"], "exec")
