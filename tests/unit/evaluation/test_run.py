"""The evaluation stage: outputs, resumption, and what makes a kept benchmark stale."""

import json
import multiprocessing
import os
import shutil
import subprocess

import pytest

from mergebench import artifacts
from mergebench.artifacts import Job
from mergebench.checkpoints.digest import weights_digest
from mergebench.errors import MergebenchError
from mergebench.evaluation import asking, responses, run
from mergebench.evaluation.kept import Kept
from mergebench.fingerprint import closure

FIELDS = {"apply_chat_template": True, "formulation": "cloze", "shots": 0, "max_tokens": 6}
NAMES = ("m_arc", "wmt14", "mbppplus")
TABLE = {"m_arc": "items", "wmt14": "items", "mbppplus": "responses"}


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
    def make(names=NAMES, most_cut=1.0, part="one", **fields):
        outputs = {"manifest": tmp_path / "scores" / "manifest.json"}
        for name in names:
            folder, table = tmp_path / ("scores" if TABLE[name] == "items" else "answers"), f"{name}.{TABLE[name]}"
            outputs |= {name: folder / f"{name}.json", table: folder / f"{table}.parquet"}
        return Job(
            stage="evaluate",
            spec={
                "base": "tiny",
                "model": "base",
                "benchmarks": {name: {**FIELDS, **fields} for name in names},
                "dtype": "float32",
                "most_cut": most_cut,
            },
            inputs={"weights": weights_folder, "data": [data / name / "manifest.json" for name in names]},
            outputs=outputs,
            state=tmp_path / "state" / part,
        )

    return make


@pytest.fixture
def scored(monkeypatch):
    """Names of the benchmarks that were really asked."""
    names = []
    original = asking.Asking._result

    def spy(self, name, *arguments):
        names.append(name)
        return original(self, name, *arguments)

    monkeypatch.setattr(asking.Asking, "_result", spy)
    return names


def kept(tmp_path):
    """The folders of finished benchmarks."""
    return sorted((tmp_path / "state/asked/tiny/base").glob("*-*"))


def test_scores_and_items_are_published(job, tmp_path, weights_folder):
    import pandas

    artifacts.execute(run, job())
    score = json.loads((tmp_path / "scores" / "wmt14.json").read_text())
    assert (score["base"], score["model"], score["benchmark"], score["n"]) == ("tiny", "base", "wmt14", 2)
    assert score["weights_digest"] == weights_digest(weights_folder)
    assert score["settings"]["generation"]["max_gen_toks"] == 6
    items = pandas.read_parquet(tmp_path / "scores" / "wmt14.items.parquet")
    assert list(items.columns) == ["item", "outcome", "group", "cluster", "response", "extracted", "extra"]
    manifest = json.loads((tmp_path / "scores" / "manifest.json").read_text())
    assert manifest["scores"]["wmt14"] == {"value": score["value"], "n": 2}


def test_answers_are_published_for_those_who_settle_them(job, tmp_path, weights_folder, rows):
    artifacts.execute(run, job())
    answers = responses.read(tmp_path / "answers" / "mbppplus.json")
    record = answers.record
    assert (record["base"], record["model"], record["benchmark"]) == ("tiny", "base", "mbppplus")
    assert record["weights_digest"] == weights_digest(weights_folder)
    assert record["data"]["rows_sha256"] == artifacts.sha256_file(rows / "mbppplus" / "rows.jsonl")
    assert "value" not in record
    assert [(r.sample, r.finish) for r in answers.responses] == [(0, "length" if r.tokens >= 6 else "stop") for r in answers.responses]
    assert record["truncated"]["answers"] == sum(r.finish == "length" for r in answers.responses)
    manifest = json.loads((tmp_path / "scores" / "manifest.json").read_text())
    assert manifest["scores"]["mbppplus"] == {"answers": record["answers"]["sha256"]}


def test_what_settles_answers_is_no_part_of_the_stage_that_asks():
    """Who changes the sandbox or a judge asks no model again."""
    modules = closure("mergebench.evaluation.run")
    assert "mergebench.evaluation.asking" in modules
    assert [m for m in modules if m.startswith(("mergebench.evaluation.code", "mergebench.evaluation.safety"))] == []


@pytest.mark.parametrize("field", [{"timeout_seconds": 3.0}, {"allow_weak_sandbox": True}, {"judge": "wildguard"}], ids=str)
def test_settings_of_sandbox_and_judge_ask_nothing_again(job, scored, field):
    artifacts.execute(run, job(NAMES[2:]))
    scored.clear()
    artifacts.execute(run, job(NAMES[2:], **field))
    assert scored == []


def test_a_killed_job_goes_on_where_it_stopped(job, scored, monkeypatch):
    original = run.Kept.put

    def die(self, place, write):
        if place.name.startswith("wmt14"):
            raise KeyboardInterrupt
        original(self, place, write)

    with monkeypatch.context() as patch:
        patch.setattr(run.Kept, "put", die)
        with pytest.raises(KeyboardInterrupt):
            artifacts.execute(run, job())
    assert "wmt14" in scored
    before = set(scored) - {"wmt14"}
    scored.clear()
    artifacts.execute(run, job())
    assert "wmt14" in scored
    assert not set(scored) & {name for name in before if name == "m_arc"}


def test_other_jobs_with_the_same_benchmarks_ask_nothing_again_and_need_no_weights(job, scored, tmp_path):
    assert run.reads_weights(job())
    artifacts.execute(run, job())
    first = {
        path: path.read_bytes() for folder in ("scores", "answers") for path in (tmp_path / folder).glob("*.*") if path.stem != "manifest"
    }
    scored.clear()
    for number, names in enumerate((NAMES[1:], NAMES[:1])):
        other = job(names, part=f"part{number}")
        assert not run.reads_weights(other)
        artifacts.execute(run, other)
    assert scored == []
    assert {path: path.read_bytes() for path in first} == first


def test_a_refused_benchmark_loses_no_other(job, scored, tmp_path, monkeypatch):
    refused = job(most_cut=0.5)
    monkeypatch.setattr(asking, "_cut", lambda lm, what: Everything() if what == "truncated" else lm.unfinished)
    with pytest.raises(MergebenchError, match=r"prompts are longer than the model's 256 tokens"):
        artifacts.execute(run, refused)
    monkeypatch.undo()
    assert kept(tmp_path) == []
    artifacts.execute(run, job(NAMES[:2]))
    assert len(kept(tmp_path)) == 2


class Everything(set):
    """Holds every context."""

    def __contains__(self, item):
        return True


def test_a_data_set_of_another_size_than_the_catalogues_is_refused_unless_limited(job, data):
    manifest = data / "wmt14" / "manifest.json"
    known = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**known, "source_rows": 2, "spec": {"limit": None}}))
    with pytest.raises(MergebenchError, match=r"counts 2 rows, but wmt14 has 3003: .*data\.limits\.wmt14"):
        run.run(job())
    manifest.write_text(json.dumps({**known, "source_rows": 2, "spec": {"limit": 2}}))
    artifacts.execute(run, job(NAMES[:2]))
    manifest.write_text(json.dumps({**known, "source": "tiny", "source_rows": 2, "spec": {"limit": None}}))
    artifacts.execute(run, job(NAMES[:2]))


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
    for folder in kept(tmp_path):
        (folder / "record.json").unlink()
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
    assert len(kept(tmp_path)) == 2, "stale pieces are removed"


@pytest.fixture
def full(tmp_path):
    """A disk for the scores on which there is hardly any room."""
    folder = tmp_path / "scores"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"only root can mount a small disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=False, capture_output=True)


def test_a_full_disk_is_named_and_loses_no_finished_benchmark(job, scored, full, tmp_path):
    with pytest.raises(MergebenchError, match=f"{full} has no space left"):
        artifacts.execute(run, job())
    assert len(kept(tmp_path)) == len(NAMES)
    assert [path.name for path in full.iterdir()] == []
    subprocess.run(["umount", str(full)], check=True)
    scored.clear()
    artifacts.execute(run, job())
    assert scored == []
    assert (full / "wmt14.json").is_file()


def test_jobs_that_keep_the_same_benchmark_at_once_leave_one_whole_copy(tmp_path):
    place = Kept(tmp_path).place("gsm8k", {"weights": 1})

    def write(folder):
        (folder / "items.parquet").write_bytes(b"table")
        (folder / "record.json").write_text(json.dumps({"by": os.getpid()}))

    def keep():
        for _ in range(50):
            Kept(tmp_path).put(place, write)
            assert Kept(tmp_path).has(place)

    workers = [multiprocessing.get_context("fork").Process(target=keep) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == [place.name]
    (place / "record.json").unlink()
    Kept(tmp_path).put(place, write)
    assert Kept(tmp_path).has(place)


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


def test_sentence_models_that_come_later_make_a_kept_score_stale(job, scored, data, monkeypatch):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    artifacts.execute(run, job(NAMES[:2]))
    scored.clear()
    archive = data / "wmt14/support/tokenizers/punkt_tab.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"models")
    artifacts.execute(run, job(NAMES[:2]))
    assert scored == ["wmt14"]
    assert nltk.data.path == [str(data / "wmt14/support")]
