"""`mergebench merge` as a person runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mergebench.artifacts import damaged
from mergebench.cli import main
from mergebench.errors import MergebenchError
from mergebench.merging import commands, passes
from mergebench.merging.commands import parse_size
from tests.reference.pico import Family, family
from tests.unit.merging.engines import weights

THREE = ("instruction", "math", "multilingual")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return family(tmp_path_factory.mktemp("family"), n=3)


def recipe(found: Family, folder: Path, **changes: Any) -> str:
    """A recipe file for these models."""
    content = {
        "base": str(found.base_folder),
        "specialists": {name: str(place) for name, place in found.folders.items()},
        "method": "task_arithmetic",
        **changes,
    }
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_one_output_with_all_that_it_was_made_from(found: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "out"
    assert main(["merge", recipe(found, tmp_path, method="ties", parameters={"density": 0.3}), str(out), "--threads", "1"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert not out.with_name("out.partial").exists()
    manifest = json.loads((out / "manifest.json").read_text())
    assert damaged(out / "manifest.json", content=True) is None
    assert manifest["merge"]["parameters"]["density"] == 0.3
    assert set(manifest["inputs"]) == {"base", *THREE}
    assert all("xxh3_128" in facts for model in manifest["inputs"].values() for facts in model["files"].values())
    realised = manifest["realised"]
    assert [cut["kept"] / cut["total"] for cut in realised["thresholds"]] == pytest.approx([0.3] * 3, abs=0.01)
    assert set(realised["densities"]) == set(THREE)
    assert {"sign_conflict_rate", "tie_rate", "direction_norm"} <= set(realised)
    assert set(realised["tensors"]) == set(found.base)
    cost = json.loads((out / "run.json").read_text())
    assert cost["wall_seconds"] > 0
    assert cost["estimate"]["passes"] >= 2
    total = sum(value.nelement() * 4 for value in found.base.values())
    assert cost["estimate"]["bytes_to_read"] == cost["estimate"]["passes"] * 4 * total


def test_the_result_is_the_sum_that_was_asked_for(found: Family, tmp_path: Path) -> None:
    assert main(["merge", recipe(found, tmp_path, parameters={"scale": 0.5}), str(tmp_path / "out"), "--quiet"]) == 0
    for name, value in load_file(tmp_path / "out" / "model.safetensors").items():
        base = found.base[name].double()
        expected = base + 0.5 * sum(model[name].double() - base for model in found.specialists.values())
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)


def test_threads_and_shards_change_nothing_but_files(found: Family, tmp_path: Path) -> None:
    path = recipe(found, tmp_path, method="dare", parameters={"density": 0.5})
    assert main(["merge", path, str(tmp_path / "one"), "--threads", "1", "--quiet"]) == 0
    assert main(["merge", path, str(tmp_path / "two"), "--threads", "3", "--quiet"]) == 0
    assert main(["merge", path, str(tmp_path / "cut"), "--max-shard-size", "300B", "--quiet"]) == 0
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    assert len(weights(tmp_path / "cut")) > 3
    digests = {json.loads((tmp_path / out / "manifest.json").read_text())["realised_digest"] for out in ("one", "two", "cut")}
    assert len(digests) == 1
    manifests = [json.loads((tmp_path / out / "manifest.json").read_text()) for out in ("one", "two")]
    assert manifests[0] == manifests[1], "a manifest holds nothing that differs from run to run"


def test_the_seed_on_the_command_line_counts(found: Family, tmp_path: Path) -> None:
    path = recipe(found, tmp_path, method="dare", parameters={"density": 0.5})
    for seed in ("0", "1"):
        assert main(["merge", path, str(tmp_path / seed), "--seed", seed, "--quiet"]) == 0
    assert weights(tmp_path / "0") != weights(tmp_path / "1")


def test_a_grid_is_one_folder_each_from_one_pass(found: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe(found, tmp_path, method="ties", grid={"density": [0.2, 0.4], "scale": [0.5, 1.0]})
    assert main(["merge", path, str(tmp_path / "out"), "--json", "--threads", "1"]) == 0
    printed = json.loads(capsys.readouterr().out)
    names = [point["name"] for point in printed["merges"]]
    assert names == [f"density-{density}_scale-{scale}" for density in (0.2, 0.4) for scale in (0.5, 1.0)]
    alone = recipe(found, tmp_path, method="ties", parameters={"density": 0.4, "scale": 0.5})
    assert main(["merge", alone, str(tmp_path / "alone"), "--quiet"]) == 0
    assert weights(tmp_path / "out" / "density-0.4_scale-0.5") == weights(tmp_path / "alone")
    for name in names:
        assert damaged(tmp_path / "out" / name / "manifest.json", content=True) is None


def test_points_with_the_same_weights_are_named(found: Family, tmp_path: Path) -> None:
    path = recipe(found, tmp_path, method="ties", grid={"density": [0.5, 0.5000001]})
    assert main(["merge", path, str(tmp_path / "out"), "--quiet"]) == 0
    first, second = json.loads((tmp_path / "out" / "grid.json").read_text())["merges"]
    assert (first["same_weights_as"], second["same_weights_as"]) == (None, "density-0.5")


def test_a_dry_run_writes_nothing(found: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe(found, tmp_path, method="dare", parameters={"density": 0.5})
    assert main(["merge", path, str(tmp_path / "deep" / "out"), "--dry-run"]) == 0
    assert "reads" in capsys.readouterr().err
    assert main(["merge", path, str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["estimate"]["bytes_to_write"] > 0
    assert sorted(item.name for item in tmp_path.iterdir()) == ["recipe.yml"]


def test_the_same_command_again_does_nothing(found: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recipe(found, tmp_path)
    assert main(["merge", path, str(tmp_path / "out"), "--quiet"]) == 0
    monkeypatch.setattr(commands, "merge_many", lambda *_, **__: pytest.fail("merged again"))
    assert main(["merge", path, str(tmp_path / "out"), "--quiet"]) == 0


@pytest.mark.parametrize("kind", ["file", "folder", "other merge"])
def test_what_is_there_is_not_overwritten(found: Family, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "folder":
        out.mkdir()
        (out / "mine").write_text("mine")
    else:
        assert main(["merge", recipe(found, tmp_path, parameters={"scale": 0.1}), str(out), "--quiet"]) == 0
    before = weights(out) if out.is_dir() else out.read_text()
    assert main(["merge", recipe(found, tmp_path), str(out), "--quiet"]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert (weights(out) if out.is_dir() else out.read_text()) == before


def test_an_empty_folder_is_filled(found: Family, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert main(["merge", recipe(found, tmp_path), str(tmp_path / "out"), "--quiet"]) == 0
    assert (tmp_path / "out" / "config.json").is_file()


def test_a_folder_that_cannot_be_made_is_named(found: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["merge", recipe(found, tmp_path), str(tmp_path / "file" / "out"), "--quiet"]) == 1
    assert capsys.readouterr().err.startswith("mergebench: Not a directory")


def test_unfinished_work_of_another_recipe_is_kept(
    found: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(commands, "_publish", _stop)
        with pytest.raises(RuntimeError):
            main(["merge", recipe(found, tmp_path), str(tmp_path / "out"), "--quiet"])
    assert not (tmp_path / "out").exists()
    assert main(["merge", recipe(found, tmp_path, parameters={"scale": 0.1}), str(tmp_path / "out"), "--quiet"]) == 1
    assert "unfinished work of another recipe" in capsys.readouterr().err
    assert main(["merge", recipe(found, tmp_path), str(tmp_path / "out"), "--quiet"]) == 0
    assert not (tmp_path / "out.partial").exists()
    assert damaged(tmp_path / "out" / "manifest.json", content=True) is None
    assert "manifest.json" not in json.loads((tmp_path / "out" / "manifest.json").read_text())["files"]


def _stop(*_: object) -> None:
    raise RuntimeError("killed")


KILLED = """
import os, signal, sys
from mergebench.checkpoints import shards
from mergebench.cli import main

end, left = shards.ShardFolder.end, [int(sys.argv.pop(1))]

def counting(self, file, record):
    end(self, file, record)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

shards.ShardFolder.end = counting
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_command_goes_on_without_writing_finished_files_again(found: Family, tmp_path: Path) -> None:
    command = ["merge", recipe(found, tmp_path, method="ties", parameters={"ties": "exact"}), "--max-shard-size", "600B", "--quiet"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    out, states = tmp_path / "out", []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", KILLED, "1", *command, str(out)], env=dict(os.environ), check=False)
        assert done.returncode == -signal.SIGKILL
        assert not out.exists()
        states.append({path.name: path.stat().st_mtime_ns for path in (tmp_path / "out.partial" / "state").rglob("*.safetensors")})
    assert all(later.items() >= earlier.items() for earlier, later in pairwise(states))
    assert [len(state) for state in states] == [1, 2, 3]
    assert main([*command, str(out)]) == 0
    assert weights(out) == weights(tmp_path / "whole")


def test_mergekit_s_recipes_are_carried_out(found: Family, tmp_path: Path) -> None:
    models = [{"model": str(place), "parameters": {"weight": 0.4}} for place in found.folders.values()]
    content = {"merge_method": "task_arithmetic", "base_model": str(found.base_folder), "models": models, "chat_template": "{{ text }}"}
    (tmp_path / "mergekit.yml").write_text(yaml.safe_dump(content))
    assert main(["merge", str(tmp_path / "mergekit.yml"), str(tmp_path / "theirs"), "--quiet"]) == 0
    assert (tmp_path / "theirs" / "chat_template.jinja").read_text() == "{{ text }}"
    assert damaged(tmp_path / "theirs" / "manifest.json", content=True) is None
    assert main(["merge", recipe(found, tmp_path, parameters={"scale": 0.4}), str(tmp_path / "ours"), "--quiet"]) == 0
    ours, theirs = (load_file(tmp_path / out / "model.safetensors") for out in ("ours", "theirs"))
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-6, atol=1e-6)


def test_statistics_are_taken_from_where_the_recipe_says(found: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", recipe(found, tmp_path, method="fisher"), str(tmp_path / "out"), "--quiet"]) == 1
    assert "fisher statistic of instruction was not given" in capsys.readouterr().err
    files = [str(path) for path in found.files]
    for method in ("fisher", "regmean", "localize_and_stitch"):
        assert main(["merge", recipe(found, tmp_path, method=method, statistics=files), str(tmp_path / method), "--quiet"]) == 0


def test_spectra_are_kept_and_used_again(found: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spectra = ["--spectra", str(tmp_path / "spectra"), "--quiet"]
    path = recipe(found, tmp_path, method="ties", parameters={"density": 0.3})
    assert main(["merge", path, str(tmp_path / "first"), *spectra]) == 0
    assert sorted(file.stem for file in (tmp_path / "spectra").iterdir()) == sorted(THREE)
    with monkeypatch.context() as patched:
        patched.setattr(passes, "measure", lambda *_, **__: pytest.fail("measured again"))
        assert main(["merge", path, str(tmp_path / "second"), *spectra]) == 0
        recipe(found, tmp_path, method="ties", parameters={"density": 0.6}, scope="backbone")
        assert main(["merge", path, str(tmp_path / "third"), *spectra]) == 0
    recipe(found, tmp_path, method="ties", parameters={"density": 0.3})
    assert weights(tmp_path / "first") == weights(tmp_path / "second")
    (tmp_path / "spectra" / "math.npz").write_bytes(b"broken")
    assert main(["merge", path, str(tmp_path / "fourth"), *spectra]) == 0
    assert weights(tmp_path / "first") == weights(tmp_path / "fourth")


def test_recorded_hashes_are_used_where_sizes_agree(found: Family, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["merge", recipe(found, tmp_path), str(first), "--quiet"]) == 0
    again = recipe(found, tmp_path, specialists={"merged": str(first), "math": str(found.folders["math"])})
    assert main(["merge", again, str(second), "--recorded-hashes", "--quiet"]) == 0
    inputs = json.loads((second / "manifest.json").read_text())["inputs"]
    recorded = json.loads((first / "manifest.json").read_text())["files"]["model.safetensors"]
    assert inputs["merged"]["files"] == {"model.safetensors": recorded}
    assert "xxh3_128" in inputs["math"]["files"]["model.safetensors"]


def test_too_little_room_is_said_before_the_work(
    found: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands.shutil, "disk_usage", lambda folder: commands.shutil._ntuple_diskusage(10, 10, 0))
    assert main(["merge", recipe(found, tmp_path), str(tmp_path / "out"), "--quiet"]) == 1
    assert "make room" in capsys.readouterr().err
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_refused(found: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", recipe(found, tmp_path), str(tmp_path / "out"), "--device", "cuda"]) == 1
    assert "no device cuda" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"), [("5GB", 5_000_000_000), ("512MiB", 512 << 20), ("1.5 kB", 1500), ("7", 7), ("2T", 2 * 10**12)]
)
def test_sizes(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "five", "1PB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(MergebenchError, match="--max-shard-size"):
        parse_size(text)


def test_merging_without_matrices_does_not_import_torch(found: Family, tmp_path: Path) -> None:
    code = "import sys; from mergebench.cli import main; assert not main(sys.argv[1:]); assert 'torch' not in sys.modules"
    command = ["merge", recipe(found, tmp_path, method="ties"), str(tmp_path / "out"), "--quiet"]
    subprocess.run([sys.executable, "-c", code, *command], check=True)
