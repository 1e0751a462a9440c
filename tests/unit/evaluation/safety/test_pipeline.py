"""Asking, judging and settling with files between them give what one process gives."""

from pathlib import Path

import pandas
import pytest

from mergebench.artifacts import execute
from mergebench.evaluation import responses, safety, settling
from mergebench.evaluation.harness import Suite
from mergebench.evaluation.responses import Answers
from mergebench.evaluation.safety import run
from mergebench.evaluation.settings import BenchmarkSetting
from tests.stubs import GoldModel, RubbishModel
from tests.unit.evaluation.rows import ROWS
from tests.unit.evaluation.safety.handmade import write_judge
from tests.unit.evaluation.safety.judged import judge_job, write_rows

BENCHMARKS = ("wildguardtest", "harmbench", "do_anything_now", "wildjailbreak", "xstest")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_judge(tmp_path_factory.mktemp("judge") / "weights")


@pytest.mark.parametrize("protocol", ["corrected", "released", "paper"])
def test_three_steps_are_one(tmp_path, weights, protocol):
    """Models that always behave and never do reach 1 and 0 by a real judge's labels, in files as in one process."""
    manifests = {name: write_rows(tmp_path, name, ROWS[name]) for name in BENCHMARKS}
    settings = [BenchmarkSetting(name, judge="wildguard", protocol=protocol) for name in BENCHMARKS]
    judge = safety.judges.create("wildguard", weights=weights, dtype="float32")
    suite = Suite(settings, {name: manifest.with_name("rows.jsonl") for name, manifest in manifests.items()}, judges={"wildguard": judge})
    paths = []
    for model in (GoldModel(), RubbishModel()):

        def keep(name: str, answers: Answers, model=model) -> None:
            record = {**answers.record, "base": "b", "model": type(model).__name__.lower()}
            paths.append(tmp_path / "answers/b" / record["model"] / f"{name}.json")
            responses.write(paths[-1], responses.table_of(paths[-1]), Answers(record, answers.responses))

        suite.asking.ask(model, None, keep)
    execute(run, judge_job(tmp_path, paths, weights=weights, judge="wildguard", backend="transformers", dtype="float32"))
    for model, value in ((GoldModel(), 1.0), (RubbishModel(), 0.0)):
        together = suite.evaluate(model)
        for name in BENCHMARKS:
            path = Path(f"b/{type(model).__name__.lower()}/{name}")
            labels, facts = safety.read_labels(tmp_path / "labels" / path.with_suffix(".parquet"))
            answers = responses.read(tmp_path / "answers" / path.with_suffix(".json"))
            apart = settling.labelled(suite.asking.questions(name), answers, labels, facts)
            assert apart.value == together[name].value == value
            pandas.testing.assert_frame_equal(apart.items, together[name].items)
            assert apart.summary["judge"]["official"] == together[name].summary["judge"]["official"]
            assert apart.summary["judge"]["counted"] == protocol
