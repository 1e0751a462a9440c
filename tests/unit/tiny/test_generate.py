"""The tiny world: schemas, determinism, and partitions that share nothing."""

from __future__ import annotations

import itertools
import random

import pytest

from mergebench.errors import MergebenchError
from mergebench.tiny import corpus, generate, prompts
from mergebench.tiny.world import partition_of

FIELDS = {
    "ifeval": {"prompt", "instruction_id_list", "kwargs"},
    "ifeval_like": {"prompt", "instruction_id_list", "kwargs"},
    "gsm8k": {"question", "answer"},
    "math": {"problem", "solution", "answer", "subject", "level"},
    "m_mmlu": {"language", "question", "choices", "answer"},
    "m_arc": {"language", "question", "choices", "answer"},
    "m_hellaswag": {"language", "context", "choices", "answer", "source"},
    "humanevalplus": {"prompt", "test", "entry_point", "canonical_solution"},
    "mbppplus": {"prompt", "test_list", "test", "code"},
    "wildguardtest": {"prompt", "adversarial", "subcategory"},
    "harmbench": {"prompt", "functional_category", "semantic_category", "context"},
    "do_anything_now": {"adversarial", "vanilla", "source"},
    "wildjailbreak": {"adversarial", "vanilla"},
    "xstest": {"prompt", "type", "safe"},
    "mmlu": {"question", "choices", "answer", "subject"},
    "mmlu_stem": {"question", "choices", "answer", "subject"},
    "triviaqa": {"question", "aliases"},
    "squadv2": {"title", "context", "question", "answers"},
    "coqa": {"story", "questions", "answers"},
    "pubmedqa": {"context", "question", "answer"},
    "wmt14": {"source", "target"},
    "conala": {"intent", "snippet"},
    "lambada": {"text"},
    "train_math_grpo": {"prompt", "answer"},
    **{f"{kind}_{domain}": {"prompt", "response"} for kind in ("train", "calibration") for domain in generate.TRAINING},
}  # fmt: skip
SOURCES = [name for name in generate.DATASETS if name not in generate.UNPARTITIONED]


@pytest.mark.parametrize("dataset", generate.DATASETS)
def test_rows_have_the_schema_and_unique_ids(dataset: str) -> None:
    rows = generate.rows(dataset, 100, 0)
    assert len(rows) == len({row["id"] for row in rows}) == 100
    assert all(set(row) == FIELDS[dataset] | {"id"} for row in rows)


@pytest.mark.parametrize("dataset", generate.DATASETS)
def test_rows_are_deterministic_and_grow_by_appending(dataset: str) -> None:
    assert generate.rows(dataset, 40, 3)[:15] == generate.rows(dataset, 15, 3)


def test_seeds_differ() -> None:
    assert generate.rows("gsm8k", 20, 0) != generate.rows("gsm8k", 20, 1)


def test_the_caller_may_seed_its_own_generator() -> None:
    random.seed(0)
    first = generate.rows("coqa", 5, 0)
    random.seed(1)
    assert generate.rows("coqa", 5, 0) == first


@pytest.mark.parametrize("dataset", [name for name in generate.DATASETS if "choices" in FIELDS[name]])
def test_choices_are_distinct_and_the_answer_is_among_them(dataset: str) -> None:
    for row in generate.rows(dataset, 100, 0):
        assert len(set(row["choices"])) == len(row["choices"]) == 4
        assert 0 <= row["answer"] < 4


def _items(dataset: str) -> dict[str, str]:
    """Prompt of each of 300 examples -> its underlying item."""
    samplers, partition = generate._source(dataset)
    stream = itertools.islice(generate.examples(samplers, partition, f"{dataset}:0"), 300)
    return {example.prompt: example.item for example in stream}


def test_no_row_and_no_item_is_shared_between_partitions() -> None:
    seen = {name: _items(name) for name in SOURCES}
    partitions = {name: generate._source(name)[1] for name in SOURCES}
    for first, second in itertools.combinations(SOURCES, 2):
        if partitions[first] != partitions[second]:
            assert not set(seen[first].values()) & set(seen[second].values()), (first, second)
            assert not set(seen[first]) & set(seen[second]), (first, second)


def test_a_benchmark_a_surrogate_and_training_come_from_three_partitions() -> None:
    for domain, surrogate in zip(generate.TRAINING, generate.SURROGATES, strict=True):
        names = (surrogate, f"train_{domain}", f"calibration_{domain}")
        assert [generate._source(name)[1] for name in names] == ["validation", "train", "calibration"]
    assert all(generate._source(name)[1] == "test" for name in generate.BENCHMARKS)


def test_pretraining_shows_no_held_out_question() -> None:
    mixture = corpus.Mixture(wanted=0.5, plain=0.2, knowledge=0.3)
    shown = {document.context for document in itertools.islice(corpus.documents(mixture, 0), 5000)}
    for dataset in SOURCES:
        if generate._source(dataset)[1] != "train":
            held_out = {prompts.wrap(prompt) for prompt in _items(dataset)}
            assert not shown & held_out, dataset


def test_every_partition_has_items() -> None:
    shares = [partition_of(f"item {i}") for i in range(2000)]
    assert {name: round(shares.count(name) / 20) for name in set(shares)} == pytest.approx(
        {"train": 65, "calibration": 5, "validation": 12, "test": 18}, abs=3
    )


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(MergebenchError, match=r"no tiny dataset 'train_poetry'.*train_coding"):
        generate.rows("train_poetry", 1, 0)


def test_asking_for_more_than_the_world_has_says_how_much_there_is() -> None:
    with pytest.raises(MergebenchError, match=r"only about 108 rows of 'triviaqa'"):
        generate.rows("triviaqa", 109, 0)
