"""Overlap of training rows with benchmarks: against a naive reference, on hostile texts, and on the real files."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mergebench.artifacts import Job, execute, read_json, sha256_file
from mergebench.data import prepare
from mergebench.data.decontamination import index as indexing
from mergebench.data.decontamination import run as decontaminate
from mergebench.data.decontamination.hits import contaminated
from mergebench.data.decontamination.index import Builder
from mergebench.data.decontamination.words import item_texts, words
from mergebench.errors import MergebenchError

Items = dict[tuple[str, int], list[str]]


def naive(rows: list[list[str]], items: Items, ngram: int, shortest: int) -> set[tuple[int, str, int]]:
    """(row, benchmark, item) that overlap, by comparing all n-grams as texts."""

    def grams(found: list[str], length: int) -> set[str]:
        return {" ".join(found[i : i + length]) for i in range(len(found) - length + 1)}

    hits = set()
    for (benchmark, item), texts in items.items():
        for wanted in map(words, texts):
            length = min(ngram, len(wanted))
            if length >= shortest:
                hits |= {
                    (number, benchmark, item)
                    for number, row in enumerate(rows)
                    if any(grams(words(text), length) & grams(wanted, length) for text in row)
                }
    return hits


def found(rows: list[list[str]], items: Items, ngram: int, shortest: int) -> set[tuple[int, str, int]]:
    """The same by the index."""
    builder, names = Builder(ngram, shortest), list(items)
    for number, (benchmark, item) in enumerate(names):
        builder.add(benchmark, number, items[benchmark, item])
    matches = builder.index().search(rows)
    return {(match.row, *names[number]) for match in matches for number in builder.items_of[match.segment]}


def language(rng: random.Random, vocabulary: int, most: int) -> list[str]:
    """One to three texts of a small vocabulary, in which n-grams repeat."""
    return [" ".join(f"w{rng.randrange(vocabulary)}" for _ in range(rng.randrange(most))) for _ in range(rng.randint(1, 3))]


@pytest.mark.parametrize("seed", range(12))
def test_the_index_finds_what_a_comparison_of_texts_finds(seed: int) -> None:
    rng = random.Random(seed)
    ngram = rng.randint(2, 6)
    shortest = rng.randint(1, ngram)
    vocabulary = rng.choice([2, 4, 9, 30])
    items = {(f"b{i % 3}", i): language(rng, vocabulary, 14) for i in range(25)}
    rows = [language(rng, vocabulary + rng.randrange(3), 30) for _ in range(40)]
    expected = naive(rows, items, ngram, shortest)
    assert found(rows, items, ngram, shortest) == expected
    assert seed or expected


def test_a_collision_of_hashes_is_no_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_table", lambda size: np.zeros(size, dtype=np.uint64))
    items = {("b", 0): ["one two three four"], ("b", 1): ["two one four three"]}
    rows = [["two one four three"], ["three two one four"], ["four three two one one two three four"]]
    assert found(rows, items, 4, 4) == {(0, "b", 1), (2, "b", 0)} == naive(rows, items, 4, 4)


def test_many_equal_passages_do_not_need_much_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_PAIRS", 3)
    items = {("b", i): [f"the same long passage again and {i}"] for i in range(20)}
    rows = [["here is the same long passage again"], ["the same short passage again"]] * 3
    assert found(rows, items, 5, 5) == naive(rows, items, 5, 5)


@pytest.mark.parametrize(
    ("row", "overlaps"),
    [
        ("The QUICK, brown — fox: jumps!", True),
        ("the\u2028quick\r\nbrown fox\tjumps", True),
        ("the quick brown ﬁox jumps", False),
        ("ｔｈｅ quick brown fox jumps", True),  # full-width letters
        ("the quick brown the quick brown fox", False),
        ("", False),
    ],
)
def test_case_punctuation_and_spacing_do_not_count(row: str, overlaps: bool) -> None:
    assert bool(found([[row]], {("b", 0): ["the quick brown fox jumps"]}, 5, 5)) is overlaps


def test_no_ngram_spans_two_texts() -> None:
    items = {("b", 0): ["one two three", "four five six"]}
    assert not found([["one two three four five six"]], items, 6, 4)
    assert not found([["one two", "three"]], {("b", 0): ["one two three"]}, 3, 3)
    assert found([["zero one two three"], ["one two"]], {("b", 0): ["one two three"]}, 3, 3) == {(0, "b", 0)}


def test_texts_that_are_too_short_are_not_looked_for() -> None:
    items = {("b", 0): ["one two three"]}
    assert not found([["one two three"]], items, 5, 4)
    assert found([["one two three and more"]], items, 5, 3)
    assert not Builder(5, 4).add("b", 0, ["one two three", ""])


def test_an_index_without_items_finds_nothing() -> None:
    assert found([["one two"], [], [""]], {}, 3, 2) == set()
    assert found([], {("b", 0): ["one two three"]}, 3, 2) == set()


def test_a_continuation_is_read_with_its_right_ending() -> None:
    row = {"id": "1", "language": "fr", "context": "Il entre", "choices": ["a", "puis sort", "b", "c"], "answer": 1}
    assert item_texts("pud_prose", row) == ["Il entre puis sort"]
    assert item_texts("a_new_one", {"id": "1", "question": "q", "hints": ["h", 3], "level": 2}) == ["q", "h"]


# -- the stage ----------------------------------------------------------------------------------------------------------

SECRET = "a long passage that is in the benchmark and in one row of the training set too"


def dataset(folder: Path, rows: list[dict[str, Any]], name: str = "rows") -> Path:
    folder.mkdir(parents=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    (folder / "manifest.json").write_text('{"files": {}}')
    return folder / "manifest.json"


def job(out: Path, data: Path, benchmarks: list[Path], threads: int = 1, **spec: Any) -> Job:
    names = {"report": "report.csv", "summary": "report.md", "hits": "hits.jsonl", "manifest": "manifest.json"}
    outputs = {name: out / file for name, file in names.items()}
    given = {"training_set": data.parent.name, **spec}
    return Job("decontaminate", given, {"data": data, "benchmarks": benchmarks}, outputs, out.parent / f"{out.name}-state", threads=threads)


@pytest.fixture
def benchmarks(tmp_path: Path) -> list[Path]:
    harm = [{"id": f"h{i}", "prompt": SECRET if i < 2 else "short", "context": ""} for i in range(3)]
    number = [{"id": "n0", "question": "how many apples are there if each of nine baskets holds seven of them", "answer": "63"}]
    return [dataset(tmp_path / "data/harmbench", harm), dataset(tmp_path / "data/gsm8k", number)]


ROWS = [{"id": f"r{i}", "prompt": f"ask {i}", "response": f"answer {i}"} for i in range(9)] + [
    {"id": "имя", "prompt": "say it", "response": f"Well: {SECRET.upper()}!"},
    {"id": "both", "prompt": SECRET, "response": "How many apples are there, if each of nine baskets holds seven of them?"},
]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_report_names_rows_and_items_and_quotes_nothing(
    tmp_path: Path, benchmarks: list[Path], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decontaminate, "ROWS", 3)
    out = tmp_path / "out"
    execute(decontaminate, job(out, dataset(tmp_path / "data/train_safety", ROWS, "train"), benchmarks, threads))
    assert contaminated(out / "hits.jsonl") == {"имя", "both"}
    hits = [json.loads(line) for line in (out / "hits.jsonl").read_text().splitlines()]
    assert hits[1] == {"id": "both", "overlaps": {"harmbench": ["h0", "h1"], "gsm8k": ["n0"]}}
    lines = list(csv.DictReader((out / "report.csv").open(encoding="utf-8")))
    assert [(line["benchmark"], line["items"], line["searched"], line["rows hit"], line["items hit"]) for line in lines] == [
        ("harmbench", "3", "2", "2", "2"),
        ("gsm8k", "1", "1", "1", "1"),
    ]
    assert lines[0]["% of rows"] == str(round(200 / 11, 3))
    assert lines[0]["example rows"] == "имя both"
    assert read_json(out / "manifest.json")["rows_hit"] == 2
    for path in out.iterdir():
        assert "passage" not in path.read_text(encoding="utf-8").lower()


def test_the_bytes_do_not_depend_on_the_number_of_processes(
    tmp_path: Path, benchmarks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decontaminate, "ROWS", 2)
    data = dataset(tmp_path / "data/train_safety", ROWS, "train")
    digests = set()
    for threads in (1, 3):
        execute(decontaminate, job(tmp_path / f"out{threads}", data, benchmarks, threads))
        digests.add(tuple(sha256_file(path) for path in sorted((tmp_path / f"out{threads}").iterdir())))
    assert len(digests) == 1


def test_calibration_rows_are_searched_like_training_rows(tmp_path: Path, benchmarks: list[Path]) -> None:
    data = dataset(tmp_path / "data/train_safety", ROWS[:9], "train")
    dataset(tmp_path / "aside", ROWS[8:10], "calibration").with_name("calibration.jsonl").rename(data.with_name("calibration.jsonl"))
    execute(decontaminate, job(tmp_path / "out", data, benchmarks))
    assert contaminated(tmp_path / "out/hits.jsonl") == {"имя"}
    assert read_json(tmp_path / "out/manifest.json")["rows"] == 11


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "train.jsonl, line 12: not a row with an id"), ("[]", "line 12: not a row"), ('{"prompt": "p"}', "line 12: not a row")],
)
def test_a_broken_row_is_named(tmp_path: Path, benchmarks: list[Path], line: str, message: str) -> None:
    data = dataset(tmp_path / "data/train_safety", ROWS, "train")
    with data.with_name("train.jsonl").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(MergebenchError, match=message):
        execute(decontaminate, job(tmp_path / "out", data, benchmarks))


def test_settings_that_make_no_sense_are_refused(tmp_path: Path, benchmarks: list[Path]) -> None:
    data = dataset(tmp_path / "data/train_safety", ROWS, "train")
    with pytest.raises(MergebenchError, match="shortest is 9 and ngram 5; expected 1 <= shortest <= ngram"):
        execute(decontaminate, job(tmp_path / "out", data, benchmarks, ngram=5, shortest=9))


@pytest.mark.real
def test_real_training_rows_against_a_real_test_set(tmp_path: Path, real_folder: Path) -> None:
    manifests = {}
    for name, outputs in (("train_math", ("train", "calibration")), ("gsm8k", ("rows",))):
        paths = {"manifest": tmp_path / f"data/{name}/manifest.json"} | {o: tmp_path / f"data/{name}/{o}.jsonl" for o in outputs}
        spec = {"dataset": name, "source": "local", "root": str(real_folder), "seed": 0, "limit": None, "calibration_rows": 8}
        execute(prepare, Job("prepare", spec, {}, paths, tmp_path / f"{name}-state"))
        manifests[name] = paths["manifest"]
    execute(decontaminate, job(tmp_path / "out", manifests["train_math"], [manifests["gsm8k"]], ngram=8))

    def texts(path: Path) -> list[list[str]]:
        return [[value for key, value in json.loads(line).items() if key != "id"] for line in path.read_text().split("\n") if line]

    rows = [row for name in ("train", "calibration") for row in texts(manifests["train_math"].with_name(f"{name}.jsonl"))]
    tested = texts(manifests["gsm8k"].with_name("rows.jsonl"))
    grams = {tuple(w[i : i + 8]) for item in tested for w in map(words, item) for i in range(len(w) - 7)}
    expected = sum(any(tuple(w[i : i + 8]) in grams for w in map(words, row) for i in range(len(w) - 7)) for row in rows)
    assert read_json(tmp_path / "out/manifest.json")["rows_hit"] == expected > 0
