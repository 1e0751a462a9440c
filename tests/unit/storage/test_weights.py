"""Dropped weights: made again for as long as somebody reads them, checked, and dropped by the last reader."""

import shutil
import threading
import types
from pathlib import Path

import pytest

from mergebench import artifacts
from mergebench.artifacts import Job, damaged, execute, read_json, write_json
from mergebench.errors import MergebenchError
from mergebench.storage import weights as module
from mergebench.storage.weights import drop, held, make_again

SHARD = "model.safetensors"


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    """A results folder with a base, a specialist and a merged model whose merging is adding their bytes."""
    results = tmp_path / "results" / "p"
    models = results / "models" / "b"
    for name, content in (("base", b"1"), ("specialist_math", b"2")):
        (models / name / "weights").mkdir(parents=True)
        (models / name / "weights" / SHARD).write_bytes(content)
        write_json(models / name / "manifest.json", {"files": {f"weights/{SHARD}": {"bytes": 1, "sha256": "x"}}})
    made = []

    def run(job):
        made.append(job.spec)
        inputs = [job.path("base"), *job.paths("specialists")]
        (job.staging("weights") / SHARD).write_bytes(b"".join((p / SHARD).read_bytes() for p in inputs))
        (job.staging("weights") / "config.json").write_text("{}")
        return {}

    monkeypatch.setattr(module.importlib, "import_module", lambda name: types.SimpleNamespace(run=run))
    monkeypatch.setattr(artifacts, "damaged", lambda manifest, **_: None if "merged" not in str(manifest) else damaged(manifest))
    merged = models / "merged_model_soup"
    spec = {"base": "b", "method": "model_soup", "domains": ["math"]}
    inputs = {"base": models / "base/weights", "specialists": [models / "specialist_math/weights"]}
    outputs = {"manifest": merged / "manifest.json", "weights": merged / "weights"}
    execute(types.SimpleNamespace(run=run), Job("merge", spec, inputs, outputs, results / ".state/merge-1"))
    made.clear()
    return types.SimpleNamespace(merged=merged, weights=merged / "weights", state=results / ".state", made=made, models=models)


def reader(campaign, stage="evaluate") -> Job:
    return Job(stage, {}, {"weights": [campaign.weights]}, {}, campaign.state / "evaluate-1")


def test_dropping_leaves_all_but_the_shards_and_is_no_damage(campaign):
    record = drop(campaign.weights, campaign.state)
    assert sorted(p.name for p in campaign.weights.iterdir()) == ["config.json", "dropped.json"]
    assert record["bytes"] == 2
    assert damaged(campaign.merged / "manifest.json") is None
    assert damaged(campaign.merged / "manifest.json", content=True) is None
    assert artifacts.published(
        Job(
            "merge",
            read_json(campaign.merged / "manifest.json")["spec"],
            {},
            {"manifest": campaign.merged / "manifest.json"},
            campaign.state,
        )
    )


def test_dropping_is_no_excuse_for_other_files(campaign):
    drop(campaign.weights, campaign.state)
    (campaign.weights / "config.json").unlink()
    assert "config.json is missing" in damaged(campaign.merged / "manifest.json")


def test_a_truncated_shard_that_was_made_again_is_damage(campaign):
    drop(campaign.weights, campaign.state)
    (campaign.weights / SHARD).write_bytes(b"1")
    assert "truncated" in damaged(campaign.merged / "manifest.json")


def test_a_reader_finds_the_same_bytes_and_the_last_one_drops_them(campaign):
    before = (campaign.weights / SHARD).read_bytes()
    drop(campaign.weights, campaign.state)
    job = reader(campaign)
    with held(job):
        assert (campaign.weights / SHARD).read_bytes() == before
        assert len(campaign.made) == 1
        with held(reader(campaign)):
            assert len(campaign.made) == 1
        assert (campaign.weights / SHARD).is_file()
    assert not (campaign.weights / SHARD).exists()
    assert job.timings["merging again"] >= 0
    assert [p.name for p in campaign.merged.iterdir() if ".tmp-" in p.name] == []


def test_readers_at_the_same_time_merge_once_and_all_see_whole_weights(campaign):
    drop(campaign.weights, campaign.state)
    everyone = threading.Barrier(4)
    seen = []

    def read():
        with held(reader(campaign)):
            seen.append((campaign.weights / SHARD).read_bytes())
            everyone.wait(timeout=30)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [b"12"] * 4
    assert len(campaign.made) == 1
    assert not (campaign.weights / SHARD).exists()


def test_weights_that_were_not_dropped_are_left_alone(campaign):
    with held(reader(campaign)):
        pass
    assert (campaign.weights / SHARD).is_file()
    assert campaign.made == []


def test_dropping_waits_for_readers(campaign):
    with held(reader(campaign)):
        dropping = threading.Thread(target=drop, args=(campaign.weights, campaign.state))
        dropping.start()
        dropping.join(timeout=0.2)
        assert dropping.is_alive()
        assert (campaign.weights / SHARD).is_file()
    dropping.join(timeout=30)
    assert not (campaign.weights / SHARD).exists()


def test_the_weights_are_dropped_though_the_reader_fails(campaign):
    drop(campaign.weights, campaign.state)
    with pytest.raises(RuntimeError), held(reader(campaign)):
        raise RuntimeError
    assert not (campaign.weights / SHARD).exists()


def test_what_a_killed_reader_left_half_made_is_made_again(campaign):
    drop(campaign.weights, campaign.state)
    (campaign.weights / SHARD).write_bytes(b"1")
    (campaign.merged / ".weights.tmp-1").mkdir()
    with held(reader(campaign)):
        assert (campaign.weights / SHARD).read_bytes() == b"12"
    assert not (campaign.merged / ".weights.tmp-1").exists()


def test_inputs_that_changed_since_are_refused(campaign):
    drop(campaign.weights, campaign.state)
    write_json(campaign.models / "specialist_math/manifest.json", {"files": {}, "other": 1})
    with pytest.raises(MergebenchError, match=r"its inputs \(specialists\) have changed"):
        make_again(campaign.weights, 1, campaign.state / "x")
    assert campaign.made == []


def test_weights_that_come_out_different_are_refused(campaign):
    drop(campaign.weights, campaign.state)
    (campaign.models / "base/weights" / SHARD).write_bytes(b"9")
    with pytest.raises(MergebenchError, match=r"differs from what .* records"):
        make_again(campaign.weights, 1, campaign.state / "x")
    assert not (campaign.weights / SHARD).exists()


def test_other_inputs_are_not_looked_at(campaign):
    job = Job("tune", {}, {"base": [campaign.models / "base/weights"], "absent": [Path("nowhere")]}, {}, campaign.state / "tune-1")
    with held(job):
        pass
    assert not (campaign.state / "weights").exists()


def test_a_new_merge_takes_the_record_away(campaign):
    drop(campaign.weights, campaign.state)
    shutil.rmtree(campaign.weights)
    campaign.weights.mkdir()
    (campaign.weights / SHARD).write_bytes(b"12")
    with held(reader(campaign)):
        pass
    assert (campaign.weights / SHARD).is_file()
