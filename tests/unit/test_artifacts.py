"""Outputs appear only when complete, manifests are deterministic, damage is noticed."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

from mergebench import artifacts
from mergebench.artifacts import Job, damaged, execute, lease, set_damaged_aside
from mergebench.errors import MergebenchError


def stage(function):
    return types.SimpleNamespace(run=function)


def make_job(root: Path, **inputs) -> Job:
    return Job(
        stage="example",
        spec={"base": "b", "value": 1},
        inputs=inputs,
        outputs={
            "manifest": root / "out/manifest.json",
            "weights": root / "out/weights",
            "cost": root / "costs/example.json",
        },
        state=root / "state",
    )


def write_weights(job: Job) -> dict:
    (job.staging("weights") / "model.bin").write_bytes(b"x" * 100)
    with job.timing("algorithm"):
        pass
    return {"answer": 42}


def test_publishes_outputs_manifest_and_cost(tmp_path):
    execute(stage(write_weights), make_job(tmp_path))
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["files"]["weights/model.bin"]["bytes"] == 100
    assert manifest["answer"] == 42
    cost = json.loads((tmp_path / "costs/example.json").read_text())
    assert cost["wall_seconds"] >= 0
    assert cost["peak_rss_bytes"] > 1_000_000
    assert set(cost["timing"]) == {"algorithm"}
    assert set(cost["energy_joules"]) == {"gpu", "cpu_package", "whole_node"}


def test_manifest_of_a_rerun_is_byte_identical(tmp_path):
    execute(stage(write_weights), make_job(tmp_path))
    first = (tmp_path / "out/manifest.json").read_bytes()
    execute(stage(write_weights), make_job(tmp_path))
    assert (tmp_path / "out/manifest.json").read_bytes() == first


def test_the_manifest_names_its_inputs_by_hash(tmp_path):
    execute(stage(write_weights), make_job(tmp_path))
    execute(stage(write_weights), make_job(tmp_path / "second", base=tmp_path / "out/weights"))
    manifest = json.loads((tmp_path / "second/out/manifest.json").read_text())
    assert manifest["inputs"] == {"base": [artifacts.sha256_file(tmp_path / "out/manifest.json")]}


def test_failure_leaves_nothing_under_final_or_temporary_names(tmp_path):
    def fail(job):
        write_weights(job)
        raise MergebenchError("no")

    with pytest.raises(MergebenchError):
        execute(stage(fail), make_job(tmp_path))
    assert list((tmp_path / "out").iterdir()) == []


def test_failure_keeps_the_previous_result(tmp_path):
    execute(stage(write_weights), make_job(tmp_path))

    def fail(job):
        job.staging("weights")
        raise MergebenchError("no")

    with pytest.raises(MergebenchError):
        execute(stage(fail), make_job(tmp_path))
    assert damaged(tmp_path / "out/manifest.json", content=True) is None


def test_a_stage_that_forgets_an_output_is_an_error(tmp_path):
    with pytest.raises(MergebenchError, match="without writing weights"):
        execute(stage(lambda job: {}), make_job(tmp_path))


def test_killed_process_leaves_no_final_file_and_the_next_run_removes_its_leftovers(tmp_path):
    program = textwrap.dedent(f"""
        import os, signal, sys, types
        sys.path.insert(0, {str(Path(artifacts.__file__).parents[1])!r})
        from pathlib import Path
        from mergebench.artifacts import Job, execute
        root = Path({str(tmp_path)!r})
        def run(job):
            (job.staging("weights") / "model.bin").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        job = Job("example", {{}}, {{}}, {{"manifest": root / "out/manifest.json", "weights": root / "out/weights"}}, root / "state")
        execute(types.SimpleNamespace(run=run), job)
    """)
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert not (tmp_path / "out/weights").exists()
    assert list((tmp_path / "out").glob(".weights.tmp-*"))
    execute(stage(write_weights), make_job(tmp_path))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["manifest.json", "weights"]


@pytest.mark.parametrize("how", ["truncated", "removed"])
def test_damage_is_named_and_set_aside(tmp_path, how):
    execute(stage(write_weights), make_job(tmp_path))
    file = tmp_path / "out/weights/model.bin"
    file.unlink() if how == "removed" else file.write_bytes(b"x")
    manifest = tmp_path / "out/manifest.json"
    assert "model.bin" in damaged(manifest)
    assert set_damaged_aside(tmp_path, dry_run=True)
    assert manifest.exists(), "a dry run changes nothing"
    assert set_damaged_aside(tmp_path)
    assert not manifest.exists()


def test_changed_content_of_equal_size_needs_the_content_check(tmp_path):
    execute(stage(write_weights), make_job(tmp_path))
    (tmp_path / "out/weights/model.bin").write_bytes(b"y" * 100)
    assert damaged(tmp_path / "out/manifest.json") is None
    assert "SHA-256" in damaged(tmp_path / "out/manifest.json", content=True)


def test_a_damaged_input_is_refused(tmp_path):
    execute(stage(write_weights), make_job(tmp_path))
    (tmp_path / "out/weights/model.bin").write_bytes(b"x")
    with pytest.raises(MergebenchError, match="truncated"):
        execute(stage(write_weights), make_job(tmp_path / "second", base=tmp_path / "out/weights"))


def test_a_missing_input_is_refused(tmp_path):
    with pytest.raises(MergebenchError, match="does not exist"):
        execute(stage(write_weights), make_job(tmp_path, base=tmp_path / "nowhere"))


def test_the_lease_makes_a_second_process_wait(tmp_path):
    program = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {str(Path(artifacts.__file__).parents[1])!r})
        from pathlib import Path
        from mergebench.artifacts import lease
        with lease(Path({str(tmp_path)!r}) / "lease") as waited:
            print(waited)
    """)
    with lease(tmp_path / "lease") as waited:
        assert waited is False
        other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert "waiting for process" in other.stderr.readline()
        assert other.poll() is None
    assert other.communicate(timeout=20)[0].strip() == "True"


def test_the_cost_record_says_what_was_asked_and_when_it_ran(tmp_path):
    job = make_job(tmp_path)
    job.requested["mem_mb"] = 2000
    execute(stage(write_weights), job)
    cost = json.loads((tmp_path / "costs/example.json").read_text())
    assert cost["requested"] == {"mem_mb": 2000}
    assert cost["run"]["attempt"] == 1
    assert cost["run"]["start"] <= cost["run"]["end"]
    assert cost["attempts"] == {"failed": 0, "wall_seconds": 0, "gpu_seconds": 0, "ends": []}
    assert "run" not in json.loads((tmp_path / "out/manifest.json").read_text())


def test_failed_attempts_are_part_of_the_final_cost(tmp_path):
    def fail(job):
        raise MergebenchError("the data are missing.")

    with pytest.raises(MergebenchError):
        execute(stage(fail), make_job(tmp_path))
    execute(stage(write_weights), make_job(tmp_path))
    cost = json.loads((tmp_path / "costs/example.json").read_text())
    assert [end["reason"] for end in cost["attempts"]["ends"]] == ["the data are missing."]
    assert cost["run"]["attempt"] == 2


def test_a_finished_job_leaves_neither_state_nor_attempts(tmp_path):
    def fail(job):
        (job.state / "finished").write_text("a benchmark")
        raise MergebenchError("no")

    with pytest.raises(MergebenchError):
        execute(stage(fail), make_job(tmp_path))
    for failed in (1, 0):
        execute(stage(write_weights), make_job(tmp_path))
        assert json.loads((tmp_path / "costs/example.json").read_text())["attempts"]["failed"] == failed
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RuntimeError("I/O error: No space left on device (os error 28)")],
    ids=["system", "library"],
)
def test_a_full_disk_is_told_in_a_sentence_and_leaves_nothing(tmp_path, error):
    def fill(job):
        job.staging("weights")
        raise error

    with pytest.raises(MergebenchError, match=r"has no space left .* free some"):
        execute(stage(fill), make_job(tmp_path))
    assert list((tmp_path / "out").iterdir()) == []


def test_sigterm_leaves_nothing_unfinished(tmp_path):
    def terminated(job):
        job.staging("weights")
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as left:
        execute(stage(terminated), make_job(tmp_path))
    assert left.value.code == 143
    assert list((tmp_path / "out").iterdir()) == []
