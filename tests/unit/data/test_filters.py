"""The filters of the published training sets: which records become rows, why others do not, and the counts that are known.

The records are written by hand in the columns of the published sets.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mergebench import catalogue
from mergebench.artifacts import Job, execute, read_json
from mergebench.data import prepare
from mergebench.data.convert import FILTERS, convert_training
from mergebench.data.convert.selection import KNOWN, Tally, check_counts, chosen
from mergebench.data.records import Record, Row
from mergebench.data.schema import check_rows
from mergebench.data.sources import local
from mergebench.errors import MergebenchError
from tests.unit.data import published

Make = Callable[..., Job]
GUARD = {
    "prompt": "p",
    "adversarial": False,
    "response": "r",
    "response_refusal_label": "refusal",
    "response_harm_label": "unharmful",
    "prompt_harm_label": "harmful",
    "subcategory": "others",
}
WILD = {"vanilla": "v", "adversarial": "a", "completion": "c", "data_type": "adversarial_benign"}
PERSONA = {"id": "personas_IF_1", "prompt": "u", "messages": [], "constraints": ["one"]}


def said(user: Any, assistant: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


GOOD: dict[str, dict[str, Any]] = {
    "train_instruction": {**PERSONA, "messages": said("u", "a")},
    "train_math": {"query": "q", "response": "r"},
    "train_math_grpo": {"problem": "p", "solution": r"so \boxed{7}", "messages": said("p", "s")},
    "train_multilingual": {
        "inputs": "q",
        "targets": "a",
        "language": "French",
        "language_code": "fra",
        "annotation_type": "original-annotations",
        "user_id": "x",
    },
    "train_coding": {"instruction": "i", "response": "r"},
}
PROMPT = {"train_math": "query", "train_math_grpo": "problem", "train_multilingual": "inputs", "train_coding": "instruction"}
RESPONSE = {"train_math": "response", "train_multilingual": "targets", "train_coding": "response"}
# What a table has where nothing was said.
NOTHING = [None, "", " \r\n", math.nan]


def made(dataset: str, name: str | None = None, **parts: list[Row]) -> tuple[list[Row], dict[str, Tally]]:
    entry = {"filter": name or next(iter(FILTERS[dataset]))}
    records = {part: [Record(v, f"{part}, row {n}") for n, v in enumerate(values, start=1)] for part, values in parts.items()}
    return convert_training(dataset, entry, records)


@pytest.mark.parametrize("dataset", GOOD)
def test_a_published_record_becomes_a_row(dataset: str) -> None:
    rows, tallies = made(dataset, rows=[GOOD[dataset]])
    check_rows(dataset, rows)
    assert tallies["rows"].facts()["dropped"] == {}


@pytest.mark.parametrize("nothing", NOTHING, ids=["null", "empty", "blank", "nan"])
@pytest.mark.parametrize(("dataset", "column", "reason"), [
    *((dataset, column, "no prompt") for dataset, column in PROMPT.items()),
    *((dataset, column, "no response") for dataset, column in RESPONSE.items()),
    ("train_math_grpo", "solution", "no boxed answer"),
])  # fmt: skip
def test_a_record_with_nothing_to_learn_is_dropped_and_counted(dataset: str, column: str, reason: str, nothing: Any) -> None:
    rows, tallies = made(dataset, rows=[GOOD[dataset], {**GOOD[dataset], column: nothing}])
    assert len(rows) == 1
    assert tallies["rows"].dropped == {reason: 1}


@pytest.mark.parametrize("nothing", NOTHING, ids=["null", "empty", "blank", "nan"])
@pytest.mark.parametrize(("user", "reason"), [(True, "no prompt"), (False, "no response")])
def test_an_empty_turn_is_dropped(user: bool, reason: str, nothing: Any) -> None:
    turns = said(nothing, "a") if user else said("u", nothing)
    assert made("train_instruction", rows=[{**PERSONA, "messages": turns}])[1]["rows"].dropped == {reason: 1}


@pytest.mark.parametrize("wrong", [7, ["r"], {"text": "r"}, True], ids=["number", "list", "object", "flag"])
@pytest.mark.parametrize("dataset", RESPONSE)
def test_a_column_of_another_type_is_named_with_its_record(dataset: str, wrong: Any) -> None:
    column = RESPONSE[dataset]
    with pytest.raises(MergebenchError, match=rf"rows, row 2: '{column}' is a \w+, expected a text"):
        made(dataset, rows=[GOOD[dataset], {**GOOD[dataset], column: wrong}])


@pytest.mark.parametrize("text", ["None", "nan", "NA", "null", "0"])
def test_a_text_that_looks_like_nothing_is_a_text(text: str) -> None:
    rows, _ = made(
        "train_safety", wildguard=[{**GUARD, "response": text}], wildjailbreak=[{**WILD, "adversarial": text, "completion": text}]
    )
    assert [(row["prompt"], row["response"]) for row in rows] == [("p", text), (text, text)]


def test_lines_are_kept_as_they_were_written() -> None:
    rows, _ = made("train_safety", wildguard=[{**GUARD, "response": "one\r\n\r\ntwo\u2028"}], wildjailbreak=[])
    assert rows[0]["response"] == "one\r\n\r\ntwo\u2028"


@pytest.mark.parametrize(
    ("change", "sft", "paper"),
    [
        ({}, None, None),
        ({"response": None, "response_harm_label": None, "response_refusal_label": None}, "no response", "no response"),
        ({"prompt": None}, "no prompt", "no prompt"),
        ({"response_harm_label": "harmful"}, "response not labelled unharmful", None),
        ({"response_harm_label": None}, "response not labelled unharmful", None),
        ({"response_refusal_label": "compliance"}, "compliance with a prompt not labelled unharmful", None),
        ({"response_refusal_label": "compliance", "prompt_harm_label": None}, "compliance with a prompt not labelled unharmful", None),
        ({"response_refusal_label": "compliance", "prompt_harm_label": "unharmful"}, None, None),
        ({"prompt_harm_label": "unharmful"}, None, None),
    ],
)
def test_what_each_filter_keeps_of_wildguard(change: dict[str, Any], sft: str | None, paper: str | None) -> None:
    for name, reason in (("sft", sft), ("paper", paper)):
        rows, tallies = made("train_safety", name, wildguard=[{**GUARD, **change}], wildjailbreak=[])
        assert tallies["wildguard"].dropped == ({reason: 1} if reason else {})
        assert len(rows) == (0 if reason else 1)


@pytest.mark.parametrize(
    ("kind", "prompt"), [("adversarial_benign", "a"), ("adversarial_harmful", "a"), ("vanilla_benign", "v"), ("vanilla_harmful", "v")]
)
def test_wildjailbreaks_prompt_follows_its_type(kind: str, prompt: str) -> None:
    rows, _ = made("train_safety", wildguard=[], wildjailbreak=[{**WILD, "data_type": kind}])
    assert rows[0]["prompt"] == prompt


def test_the_published_tsv_loses_no_row_to_a_table_readers_missing_values(tmp_path: Path) -> None:
    words = ["None", "NA", "nan", "NULL", "n/a", 'a "quoted"\ttab', "two\r\nlines"]
    published.parquet(tmp_path / "wildguardmix/train/wildguard_train.parquet", [GUARD])
    lines = [[word, "", word, "vanilla_harmful"] for word in words] + [["", "", "", "vanilla_benign"]]
    published.table(
        tmp_path / "wildjailbreak/train/train.tsv", ["vanilla", "adversarial", "completion", "data_type"], lines, delimiter="\t"
    )
    entry = {**catalogue.datasets()["train_safety"], "filter": "paper"}
    loaded = local.load("train_safety", entry, tmp_path, seed=0)
    assert [row["prompt"] for row in loaded.rows[1:]] == [row["response"] for row in loaded.rows[1:]] == words
    assert loaded.tallies["wildjailbreak"].dropped == {"no prompt": 1}


# -- counts -------------------------------------------------------------------------------------------------------------


def tally(records: int, kept: int = 0, **more: dict[str, int]) -> Tally:
    found = Tally(records, kept)
    found.dropped.update(more.get("dropped", {}))
    found.languages.update(more.get("languages", {}))
    return found


AYA = {"es": 3854, "fr": 1422, "ru": 423, "de": 241}


def test_the_papers_counts_are_those_of_the_catalogue() -> None:
    entries = catalogue.datasets()
    assert sum(AYA.values()) == 5940
    check_counts("train_multilingual", "benchmark_languages", entries["train_multilingual"], {"rows": tally(202362, 5940, languages=AYA)})
    check_counts("train_instruction", "all", entries["train_instruction"], {"rows": tally(29980, 29980)})
    guard = tally(86759, 37976, dropped={"no response": 48783})
    for name in ("sft", "paper"):
        assert check_counts("train_safety", name, entries["train_safety"], {"wildguard": guard, "wildjailbreak": tally(261559)}) == []


def test_a_stated_count_that_is_not_found_stops_with_both_numbers_and_the_reasons() -> None:
    entry = catalogue.datasets()["train_multilingual"]
    found = tally(202362, 5939, languages={**AYA, "de": 240}, dropped={"another language": 196422, "no response": 1})
    with pytest.raises(MergebenchError) as raised:
        check_counts("train_multilingual", "benchmark_languages", entry, {"rows": found})
    message = str(raised.value)
    assert "5,939 rows with filter benchmark_languages, expected 5,940 (known from the paper's Table 5)" in message
    assert "(de 240, es 3,854, fr 1,422, ru 423); dropped 196,422 another language, 1 no response" in message
    assert check_counts("train_multilingual", "benchmark_languages", entry, {"rows": found}, stop=False)


def test_a_remembered_count_warns() -> None:
    entry = catalogue.datasets()["train_math"]
    (warning,) = check_counts("train_math", "all", entry, {"rows": tally(590700, 590700)})
    assert "590,700 records, expected 590,705 (known from memory only)" in warning


def test_every_count_of_the_catalogue_names_its_source() -> None:
    for dataset, entry in catalogue.datasets().items():
        for name, described in entry.get("filters", {}).items():
            assert set(described["counts"]) == set(FILTERS[dataset][name]) == set(entry["hub"]["parts"]) == set(entry["local"]["published"])
            assert {known for part in described["counts"].values() for _, known in part.values()} <= set(KNOWN)


def test_an_unknown_filter_names_the_nearest() -> None:
    entry = catalogue.datasets()["train_safety"]
    assert chosen("train_safety", entry, None) == "sft"
    with pytest.raises(MergebenchError, match=r"train_safety has no filter 'papr'; did you mean 'paper'\? \(allowed: sft, paper\)"):
        chosen("train_safety", entry, "papr")
    with pytest.raises(MergebenchError, match="gsm8k has no filter 'all'; it has none at all"):
        chosen("gsm8k", catalogue.datasets()["gsm8k"], "all")


# -- the stage ----------------------------------------------------------------------------------------------------------


def test_the_published_files_are_preferred_to_the_stand_in(job: Make, own_folder: Path) -> None:
    records = [{"query": f"q{i}", "response": f"r{i}" if i else ""} for i in range(6)]
    for number in range(2):
        published.parquet(own_folder / f"dart-math-uniform/data/train-{number:05d}-of-00002.parquet", records[3 * number :][:3])
    outputs = {"manifest": "manifest.json", "train": "train.jsonl", "calibration": "calibration.jsonl"}
    ready = job(outputs, dataset="train_math", source="local", root=str(own_folder), calibration_rows=1)
    execute(prepare, ready)
    manifest = read_json(ready.outputs["manifest"])
    assert manifest["filter"] == "all"
    assert manifest["filtered"] == {"rows": {"records": 6, "kept": 5, "dropped": {"no response": 1}}}
    assert manifest["rows"] == {"train": 4, "calibration": 1}
    assert len(manifest["source_files"]) == 2
    assert "6 records, expected 590,705 (known from memory only)" in manifest["notes"][0]


def test_a_training_set_of_ones_own_names_its_columns(job: Make, tmp_path: Path) -> None:
    published.jsonl(tmp_path / "law/cases.jsonl", [{"ask": f"q{i}", "say": f"a{i}", "about": "x" if i else None} for i in range(4)])
    entry = {
        "title": "Law", "use": "training", "rows": None, "columns": ["ask", "say"],
        "fields": {"prompt": "ask", "response": "say", "context": "about"}, "local": {"published": {"rows": "law/*.jsonl"}},
    }  # fmt: skip
    outputs = {"manifest": "manifest.json", "train": "train.jsonl", "calibration": "calibration.jsonl"}
    ready = job(outputs, dataset="train_law", entry=entry, source="local", root=str(tmp_path), calibration_rows=1)
    execute(prepare, ready)
    assert read_json(ready.outputs["manifest"])["rows"] == {"train": 3, "calibration": 1}
    assert '"input": "x"' in ready.outputs["train"].read_text()
