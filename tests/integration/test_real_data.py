"""The scoring on the authors' real files: a model that answers rightly reaches the ceiling, one that answers wrongly the floor.

Two stub models that look at the row behind each request answer 20 items of every benchmark whose files are there. What they
say goes through the real prompts, stop strings, filters, checkers, sandbox, judge and aggregation.
"""

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mergebench import catalogue
from mergebench.artifacts import Job, execute
from mergebench.data import prepare
from mergebench.data.records import Row
from mergebench.evaluation.harness import Record, Suite
from mergebench.evaluation.settings import BenchmarkSetting
from tests.stubs import GoldModel, RubbishModel

pytestmark = pytest.mark.real

ITEMS = 20
BENCHMARKS = (
    "ifeval", "gsm8k", "math", "m_mmlu", "m_arc", "humanevalplus", "mbppplus", "harmbench", "do_anything_now", "xstest",
    "mmlu", "triviaqa", "squadv2", "coqa", "pubmedqa", "wmt14", "mmlu_stem", "lambada", "conala", "pud_prose",
)  # fmt: skip
LETTERED = ("m_mmlu", "mmlu", "mmlu_stem")
# A solution's own test may be slow on a busy machine; that is no failure of the scoring.
PROGRAM_SECONDS = 60.0

Scores = dict[str, Record]
Prepared = Callable[[str, int | None], Path]


class WorkedModel(GoldModel):
    """Answers with the reference's whole working, word for word, instead of its final answer."""

    def answer(self, task: str, doc: dict[str, Any]) -> str:
        return str(doc["solution"] if task == "math" else doc["answer"])


@pytest.fixture(scope="module")
def real_folder() -> Path:
    root = os.environ.get("MERGEBENCH_REAL_DATA", "")
    if not root or not Path(root).is_dir():
        pytest.skip("MERGEBENCH_REAL_DATA does not name a folder with the benchmarks' real files")
    return Path(root)


@pytest.fixture(scope="module")
def prepared(real_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The rows of a benchmark, made by the prepare stage: a function of its name and a limit (None: all rows)."""
    folder = tmp_path_factory.mktemp("data")

    @cache
    def rows(benchmark: str, limit: int | None) -> Path:
        place = folder / f"{limit or 'all'}" / benchmark
        spec = {"dataset": benchmark, "source": "local", "root": str(real_folder), "limit": limit, "seed": 0}
        outputs = {"manifest": place / "manifest.json", "rows": place / "rows.jsonl"}
        execute(prepare, Job("prepare", spec, {}, outputs, folder / "state"))
        return outputs["rows"]

    return rows


def setting(benchmark: str, **changes: Any) -> BenchmarkSetting:
    seconds = PROGRAM_SECONDS if benchmark in ("humanevalplus", "mbppplus") else None
    return BenchmarkSetting(benchmark, shots=0, timeout_seconds=seconds, allow_weak_sandbox=True, **changes)


@pytest.fixture(scope="module")
def suite(prepared: Prepared) -> Suite:
    return Suite([setting(name) for name in BENCHMARKS], {name: prepared(name, ITEMS) for name in BENCHMARKS})


@pytest.fixture(scope="module")
def gold(suite: Suite) -> Scores:
    return suite.evaluate(GoldModel())


@pytest.fixture(scope="module")
def rubbish(suite: Suite) -> Scores:
    return suite.evaluate(RubbishModel())


def read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def test_every_benchmark_with_published_files_is_covered() -> None:
    absent = {"m_hellaswag", "wildguardtest", "ifeval_like", "wildjailbreak"}
    assert set(BENCHMARKS) | absent == set(catalogue.benchmarks())


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_right_answers_reach_the_ceiling(benchmark: str, gold: Scores) -> None:
    wrong = [item for item, outcome in zip(gold[benchmark].items["item"], gold[benchmark].items["outcome"], strict=True) if outcome < 1]
    assert gold[benchmark].value == pytest.approx(1.0), wrong


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_wrong_answers_stay_on_the_floor(benchmark: str, rubbish: Scores, prepared: Prepared) -> None:
    # Silence is the right answer to SQuAD's unanswerable questions, and the best threshold silences a model that is always wrong.
    rows = read(prepared(benchmark, ITEMS))
    floor = sum(not row["answers"] for row in rows) / len(rows) if benchmark == "squadv2" else 0.0
    # CoNaLa's smoothing adds one to every count, which leaves a trace of credit for any answer.
    assert rubbish[benchmark].value == pytest.approx(floor, abs=0.02 if benchmark == "conala" else 1e-9)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_twenty_items_are_scored_and_traced_to_their_rows(benchmark: str, gold: Scores, prepared: Prepared) -> None:
    rows = read(prepared(benchmark, ITEMS))
    record = gold[benchmark]
    assert list(record.items["item"]) == [row["id"] for row in rows]
    # The excerpt of CoQA has one dialogue. Prompts that cannot be checked without NLTK's sentence models are counted apart.
    unscorable = (record.summary["unscorable"] or {"count": 0})["count"]
    assert record.summary["n"] + unscorable == len(rows) == (1 if benchmark == "coqa" else ITEMS)
    assert unscorable == 0 or (benchmark == "ifeval" and unscorable < ITEMS / 2)
    assert record.summary["data"]["source"] == "local"


@pytest.mark.parametrize(("benchmark", "languages"), [("m_mmlu", 2), ("m_arc", 2), ("pud_prose", 4)])
def test_languages_are_scored_apart(benchmark: str, languages: int, gold: Scores) -> None:
    assert len(gold[benchmark].summary["parts"]) == languages


def test_choices_by_their_text_reach_the_ceiling_too(prepared: Prepared) -> None:
    suite = Suite([setting(name, formulation="cloze") for name in LETTERED], {name: prepared(name, ITEMS) for name in LETTERED})
    assert {name: record.value for name, record in suite.evaluate(GoldModel()).items()} == dict.fromkeys(LETTERED, 1.0)
    assert {name: record.value for name, record in suite.evaluate(RubbishModel()).items()} == dict.fromkeys(LETTERED, 0.0)


def whole(benchmark: str, model: GoldModel, prepared: Prepared) -> Record:
    """A model's score on all rows of a benchmark."""
    return Suite([setting(benchmark)], {benchmark: prepared(benchmark, None)}).evaluate(model)[benchmark]


def test_answers_are_found_in_every_worked_solution_of_gsm8k(prepared: Prepared) -> None:
    assert whole("gsm8k", WorkedModel(), prepared).value == 1.0


def test_the_ceiling_of_math_is_set_by_its_stop_string(prepared: Prepared) -> None:
    """Where a figure was taken out, three reference solutions hold the three line breaks at which an answer ends."""
    record = whole("math", WorkedModel(), prepared)
    cut = {row["id"] for row in read(prepared("math", None)) if "\n\n\n" in row["solution"].split("\\boxed")[0]}
    wrong = set(record.items["item"][record.items["outcome"] < 1])
    assert wrong <= cut
    assert record.value >= 1 - len(cut) / 500 >= 0.99


def test_the_ceiling_of_triviaqa_is_set_by_its_stop_characters(prepared: Prepared) -> None:
    """An answer ends at a full stop or comma, so a name that holds one inside in every spelling cannot be said."""
    rows = read(prepared("triviaqa", None))
    sayable = [any(not set(alias.rstrip(".,")) & set(".,\n") for alias in row["aliases"]) for row in rows]
    assert whole("triviaqa", GoldModel(), prepared).value == pytest.approx(sum(sayable) / len(rows))
    assert sum(sayable) / len(rows) > 0.98


def test_the_ceiling_of_conala_is_set_by_its_snippets_of_several_lines(prepared: Prepared) -> None:
    """An answer ends at the first line break, as in the published harness; corpus BLEU then pays for its brevity."""
    record = whole("conala", GoldModel(), prepared)
    several = {row["id"] for row in read(prepared("conala", None)) if "\n" in row["snippet"].strip()}
    assert set(record.items["item"][record.items["outcome"] < 0.999]) <= several
    assert 0.9 < record.value < 1.0


@pytest.mark.parametrize("benchmark", ["squadv2", "wmt14", "pubmedqa", "lambada", "m_arc", "pud_prose"])
def test_every_row_of_the_full_files_can_be_answered_rightly(benchmark: str, prepared: Prepared) -> None:
    assert whole(benchmark, GoldModel(), prepared).value == pytest.approx(1.0)
