"""The settle stage: scores from answers, labels and the sandbox, without a model; what is settled again and what is not."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mergebench import artifacts
from mergebench.artifacts import Job
from mergebench.errors import MergebenchError
from mergebench.evaluation import responses, safety, settle, settling
from mergebench.evaluation.asking import Asking
from mergebench.evaluation.harness import Suite
from mergebench.evaluation.responses import Answers, Response
from mergebench.evaluation.safety import run as judging
from mergebench.evaluation.settings import BenchmarkSetting
from tests.stubs import GoldModel, RubbishModel

BENCHMARKS = {"code": ("mbppplus",), "safety": ("xstest", "wildguardtest")}
MODELS = {"base": RubbishModel, "merged_ties": GoldModel}
SETTINGS = {"allow_weak_sandbox": True, "timeout_seconds": 20.0}


def describe(folder):
    """Write the manifest of a data set as the data stage does."""
    (folder / "manifest.json").write_text(json.dumps({"source": "local", "files": artifacts.inventory(folder / "rows.jsonl")}))


def other_rows(campaign):
    folder = campaign / "data/xstest"
    (folder / "rows.jsonl").write_text((folder / "rows.jsonl").read_text().splitlines()[0] + "\n")
    describe(folder)


@pytest.fixture
def campaign(rows, tmp_path):
    """Data, and the answers of two models, as the evaluation stage leaves them."""
    names = [name for found in BENCHMARKS.values() for name in found]
    for name in names:
        shutil.copytree(rows / name, tmp_path / "data" / name)
        describe(tmp_path / "data" / name)
    for model, stub in MODELS.items():
        for name, answers in Asking([BenchmarkSetting(name) for name in names], rows).ask(stub()).items():
            record = tmp_path / "answers/tiny" / model / f"{name}.json"
            identity = {"base": "tiny", "model": model, "weights_digest": model}
            responses.write(record, responses.table_of(record), Answers({**answers.record, **identity}, answers.responses))
    return tmp_path


def data(campaign, kind):
    return [campaign / "data" / name / "manifest.json" for name in BENCHMARKS[kind]]


def answers(campaign, kind, models=tuple(MODELS)):
    return [campaign / f"answers/tiny/{m}/{name}.json" for m in models for name in BENCHMARKS[kind]]


def judge_job(campaign, models=tuple(MODELS), **spec):
    labels = {
        f"labels/tiny/{p.parent.name}/{p.stem}": campaign / f"labels/tiny/{p.parent.name}/{p.stem}.parquet"
        for p in answers(campaign, "safety", models)
    }
    inputs = {"answers": answers(campaign, "safety", models), "data": data(campaign, "safety"), "weights": []}
    return Job("judge", {"base": "tiny", "judge": "keyword", **spec}, inputs, labels, campaign / "state/judge")


def settle_job(campaign, kind, models=tuple(MODELS), state="settle", **settings):
    outputs = {}
    for path in answers(campaign, kind, models):
        name = f"scores/tiny/{path.parent.name}/{path.stem}"
        outputs |= {name: campaign / f"{name}.json", f"{name}.items": campaign / f"{name}.items.parquet"}
    inputs = {"answers": answers(campaign, kind, models), "data": data(campaign, kind)}
    if kind == "safety":
        inputs["labels"] = [campaign / f"labels/tiny/{p.parent.name}/{p.stem}.parquet" for p in inputs["answers"]]
    spec = {"base": "tiny", "kind": kind, "benchmarks": {name: {**SETTINGS, **settings} for name in BENCHMARKS[kind]}}
    return Job("settle", spec, inputs, outputs, campaign / "state" / state)


def score(campaign, model, benchmark):
    return json.loads((campaign / f"scores/tiny/{model}/{benchmark}.json").read_text())


@pytest.fixture
def settled(monkeypatch):
    """Benchmarks that were really settled, by who settles."""
    found = []
    for name in ("programs_run", "labelled"):
        original = getattr(settling, name)

        def spy(questions, given, *arguments, name=name, original=original, **options):
            found.append((name, given.record["model"], given.record["benchmark"]))
            return original(questions, given, *arguments, **options)

        monkeypatch.setattr(settling, name, spy)
    return found


@pytest.fixture
def judged(campaign):
    artifacts.execute(judging, judge_job(campaign))
    return campaign


def test_safety_scores_follow_from_answers_and_labels(judged):
    artifacts.execute(settle, settle_job(judged, "safety"))
    for benchmark in BENCHMARKS["safety"]:
        assert (score(judged, "base", benchmark)["value"], score(judged, "merged_ties", benchmark)["value"]) == (0.0, 1.0)
    record = score(judged, "merged_ties", "xstest")
    asked = responses.read(judged / "answers/tiny/merged_ties/xstest.json").record
    assert record.items() >= {k: v for k, v in asked.items() if k not in ("answers", "seconds")}.items()
    assert record["judge"]["name"] == "keyword"
    assert record["seconds"].keys() == {"asked", "settled"}
    assert "answers" not in record


def test_settling_apart_gives_what_one_process_gives(judged, rows):
    artifacts.execute(settle, settle_job(judged, "safety"))
    artifacts.execute(settle, settle_job(judged, "code"))
    names = [name for found in BENCHMARKS.values() for name in found]
    together = Suite([BenchmarkSetting(name, **SETTINGS) for name in names], rows).evaluate(GoldModel())
    import pandas

    for name in names:
        frame = pandas.read_parquet(judged / f"scores/tiny/merged_ties/{name}.items.parquet")
        pandas.testing.assert_frame_equal(frame, together[name].items, check_dtype=False)
        assert score(judged, "merged_ties", name)["value"] == together[name].value


def test_programs_are_run_and_the_sandbox_is_recorded(campaign):
    artifacts.execute(settle, settle_job(campaign, "code"))
    assert (score(campaign, "base", "mbppplus")["value"], score(campaign, "merged_ties", "mbppplus")["value"]) == (0.0, 1.0)
    assert score(campaign, "base", "mbppplus")["sandbox"]["timeout_seconds"] == 20.0


def test_a_deleted_score_is_restored_and_every_file_is_the_same(judged, settled):
    artifacts.execute(settle, settle_job(judged, "safety"))
    before = {path: path.read_bytes() for path in judged.glob("scores/tiny/*/*")}
    (judged / "scores/tiny/base/xstest.json").unlink()
    settled.clear()
    artifacts.execute(settle, settle_job(judged, "safety"))
    assert settled == []
    assert {path: path.read_bytes() for path in judged.glob("scores/tiny/*/*")} == before


def test_one_models_job_finds_what_the_job_of_all_has_settled(judged, settled):
    artifacts.execute(settle, settle_job(judged, "safety"))
    settled.clear()
    artifacts.execute(settle, settle_job(judged, "safety", models=("base",), state="other"))
    assert settled == []


def test_other_limits_run_the_programs_again_and_other_labels_settle_again(judged, settled):
    artifacts.execute(settle, settle_job(judged, "code"))
    settled.clear()
    artifacts.execute(settle, settle_job(judged, "code", timeout_seconds=19.0))
    assert settled == [("programs_run", model, "mbppplus") for model in MODELS]
    artifacts.execute(settle, settle_job(judged, "safety"))
    settled.clear()
    path = judged / "labels/tiny/base/xstest.parquet"
    labels, facts = safety.read_labels(path)
    safety.write_labels(path, labels, {**facts, "name": "another"})
    artifacts.execute(settle, settle_job(judged, "safety"))
    assert settled == [("labelled", "base", "xstest")]


def test_answers_of_a_remade_model_are_settled_again_and_the_others_are_not(judged, settled):
    artifacts.execute(settle, settle_job(judged, "safety"))
    record = judged / "answers/tiny/base/xstest.json"
    found = responses.read(record)
    changed = tuple(Response(r.item, r.sample, "I cannot help with that.", r.finish, r.tokens) for r in found.responses)
    responses.write(record, responses.table_of(record), Answers(found.record, changed))
    artifacts.execute(judging, judge_job(judged))
    settled.clear()
    artifacts.execute(settle, settle_job(judged, "safety"))
    assert settled == [("labelled", "base", "xstest")]


def test_a_job_killed_between_two_benchmarks_goes_on_after_the_first(judged, settled):
    """SIGKILL, in a process of its own, at the moment when the second score would be kept."""
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from mergebench import artifacts
from mergebench.evaluation import kept, settle
from tests.unit.evaluation import test_settle
original, seen = kept.Kept.put, []
def put(self, place, write):
    if seen:
        os.kill(os.getpid(), signal.SIGKILL)
    seen.append(place)
    original(self, place, write)
kept.Kept.put = put
artifacts.execute(settle, test_settle.settle_job(Path({str(judged)!r}), "safety"))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(judged.glob("scores/tiny/*/*.json")) == []
    artifacts.execute(settle, settle_job(judged, "safety"))
    assert settled == [
        ("labelled", "base", "wildguardtest"),
        ("labelled", "merged_ties", "xstest"),
        ("labelled", "merged_ties", "wildguardtest"),
    ]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (other_rows, "answers other rows than"),
        (
            lambda c: shutil.copy(c / "answers/tiny/base/wildguardtest.json", c / "answers/tiny/base/xstest.json"),
            "does not have the SHA-256",
        ),
        (lambda c: responses.table_of(c / "answers/tiny/base/xstest.json").unlink(), "is missing"),
    ],
    ids=["other rows", "a record of another benchmark", "no table"],
)
def test_what_does_not_belong_together_is_refused(judged, damage, said):
    damage(judged)
    with pytest.raises(MergebenchError, match=said):
        artifacts.execute(settle, settle_job(judged, "safety"))
    assert list(judged.glob("scores/tiny/*/*.json")) == []


def test_missing_answers_labels_and_data_are_named(judged):
    job = settle_job(judged, "safety")
    job.inputs["labels"] = job.inputs["labels"][1:]
    with pytest.raises(MergebenchError, match="base has no labels for xstest"):
        settle.run(job)
    job = settle_job(judged, "safety")
    job.inputs["data"] = job.inputs["data"][1:]
    with pytest.raises(MergebenchError, match="xstest has no data"):
        settle.run(job)
    record = judged / "answers/tiny/base/xstest.json"
    found = responses.read(record)
    responses.write(record, responses.table_of(record), Answers(found.record, found.responses[1:]))
    artifacts.execute(judging, judge_job(judged))
    with pytest.raises(MergebenchError, match=r"xstest: row .* was not answered"):
        settle.run(settle_job(judged, "safety"))
