"""The evaluation stage: outputs, resumption, and what makes a kept score stale."""

import json
import shutil

import pytest

from mergebench import artifacts
from mergebench.artifacts import Job
from mergebench.checkpoints.digest import weights_digest
from mergebench.errors import MergebenchError
from mergebench.evaluation import harness, run

FIELDS = {"apply_chat_template": True, "formulation": "cloze", "shots": 0, "max_tokens": 6, "allow_weak_sandbox": True}
NAMES = ("m_arc", "wmt14", "mbppplus")


@pytest.fixture
def data(rows, tmp_path):
    folder = tmp_path / "data"
    for name in NAMES:
        shutil.copytree(rows / name, folder / name)
        describe(folder / name)
    return folder


def describe(folder):
    """Write the manifest of a data set as the data stage does."""
    files = artifacts.inventory(folder / "rows.jsonl")
    (folder / "manifest.json").write_text(json.dumps({"source": "local", "files": files}))


@pytest.fixture
def job(weights_folder, data, tmp_path):
    def make(names=NAMES, **fields):
        outputs = {"manifest": tmp_path / "scores" / "manifest.json"}
        for name in names:
            outputs |= {name: tmp_path / "scores" / f"{name}.json", f"{name}.items": tmp_path / "scores" / f"{name}.items.parquet"}
        return Job(
            stage="evaluate",
            spec={"base": "tiny", "model": "base", "benchmarks": {name: {**FIELDS, **fields} for name in names}, "dtype": "float32"},
            inputs={"weights": weights_folder, "data": [data / name / "manifest.json" for name in names]},
            outputs=outputs,
            state=tmp_path / "state",
        )

    return make


@pytest.fixture
def scored(monkeypatch):
    """Names of the benchmarks that were really scored."""
    names = []
    original = harness.Suite._record

    def spy(self, name, *arguments):
        names.append(name)
        return original(self, name, *arguments)

    monkeypatch.setattr(harness.Suite, "_record", spy)
    return names


def test_scores_and_items_are_published(job, tmp_path, weights_folder):
    import pandas

    artifacts.execute(run, job())
    score = json.loads((tmp_path / "scores" / "wmt14.json").read_text())
    assert (score["base"], score["model"], score["benchmark"], score["n"]) == ("tiny", "base", "wmt14", 2)
    assert score["weights_digest"] == weights_digest(weights_folder)
    assert score["settings"]["generation"]["max_gen_toks"] == 6
    items = pandas.read_parquet(tmp_path / "scores" / "wmt14.items.parquet")
    assert list(items.columns) == ["item", "outcome", "group", "response", "extra"]
    manifest = json.loads((tmp_path / "scores" / "manifest.json").read_text())
    assert manifest["scores"]["wmt14"] == {"value": score["value"], "n": 2}


def test_a_killed_job_goes_on_where_it_stopped(job, scored, monkeypatch):
    def die(*arguments, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(harness.programs, "settle", die)
        with pytest.raises(KeyboardInterrupt):
            artifacts.execute(run, job())
    assert scored == ["m_arc", "wmt14", "mbppplus"]
    scored.clear()
    artifacts.execute(run, job())
    assert scored == ["mbppplus"]


def test_a_missing_score_is_restored_without_scoring_the_others(job, scored, tmp_path):
    artifacts.execute(run, job(NAMES[:2]))
    first = (tmp_path / "scores" / "wmt14.json").read_bytes()
    (tmp_path / "scores" / "wmt14.json").unlink()
    scored.clear()
    artifacts.execute(run, job(NAMES[:2]))
    assert scored == []
    assert (tmp_path / "scores" / "wmt14.json").read_bytes() == first


def test_a_half_written_score_is_not_trusted(job, scored, tmp_path):
    artifacts.execute(run, job(NAMES[:1]))
    for path in (tmp_path / "state").glob("*/score.json"):
        path.unlink()
    scored.clear()
    artifacts.execute(run, job(NAMES[:1]))
    assert scored == ["m_arc"]


def test_settings_rows_and_weights_make_kept_scores_stale(job, scored, data, weights_folder, tmp_path):
    artifacts.execute(run, job(NAMES[:2]))
    scored.clear()
    artifacts.execute(run, job(NAMES[:2], max_tokens=5))
    assert scored == ["m_arc", "wmt14"]
    scored.clear()
    rows = data / "wmt14" / "rows.jsonl"
    rows.write_text(rows.read_text().splitlines()[0] + "\n")
    describe(rows.parent)
    artifacts.execute(run, job(NAMES[:2], max_tokens=5))
    assert scored == ["wmt14"]
    scored.clear()
    changed = job(NAMES[:2], max_tokens=5)
    other = tmp_path / "other"
    shutil.copytree(weights_folder, other)
    with (other / "model.safetensors").open("r+b") as stream:
        stream.seek(-4, 2)
        stream.write(b"\x00\x00\x00\x3f")
    changed.inputs["weights"] = other
    artifacts.execute(run, changed)
    assert scored == ["m_arc", "wmt14"]
    assert len(list((tmp_path / "state").glob("*-*"))) == 2, "stale scores are removed from the state"


def test_mistakes_are_explained(job, tmp_path):
    without = job()
    without.inputs["data"] = without.inputs["data"][:1]
    with pytest.raises(MergebenchError, match="benchmark wmt14 has no data"):
        run.run(without)
    empty = job()
    empty.inputs["weights"] = tmp_path / "empty"
    (tmp_path / "empty").mkdir()
    with pytest.raises(MergebenchError, match=r"no \*.safetensors"):
        run.run(empty)
