"""Killed at any moment, a merge goes on where it was: the same bytes, and no finished file is written again."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.merging import outputs
from mergebench.merging.engine import merge, merge_many
from mergebench.merging.plan import Recipe
from tests.reference.pico import Family, family, write_checkpoint
from tests.unit.merging.engines import weights

CHILD = """
import sys, time
from pathlib import Path
from mergebench.merging import engine
from mergebench.merging.models import Models

root, out = Path(sys.argv[1]), Path(sys.argv[2])
models = Models.open(root / "base", {"coding": root / "coding", "math": root / "math"})

def tell(done, total):
    print(done, flush=True)
    time.sleep(0.005)

engine.merge(models, "ties", {"density": 0.3}, folder=out, max_shard_bytes=40_000, threads=2, progress=tell)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models of some thirty tensors, which fill a dozen files of 40 kB."""
    root = tmp_path_factory.mktemp("large")
    chance = torch.Generator().manual_seed(0)
    for name in ("base", "coding", "math"):
        tensors = {f"model.layers.{n}.mlp.up_proj.weight": torch.randn(64, 64, generator=chance) for n in range(30)}
        write_checkpoint(root / name, tensors)
    return root


def run_child(root: Path, out: Path, *, tensors: int = 10**6, pause: float = 0.0) -> int:
    """Merge in a process of its own, which is killed some time after it has written so many tensors; its exit status."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(root), str(out)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    if all(child.stdout.readline() for _ in range(tensors)):
        time.sleep(pause)
        child.send_signal(signal.SIGKILL)
    child.stdout.close()
    return child.wait()


def test_killed_at_random_moments(large: Path, tmp_path: Path) -> None:
    assert run_child(large, tmp_path / "whole") == 0
    chance = random.Random(0)
    out, killed, seen = tmp_path / "out", 0, {}
    for _ in range(8):
        # Nothing at all, or a few more tensors than before, and any moment of writing the next one.
        status = run_child(large, out, tensors=chance.choice([0, 2, 3, 5]), pause=chance.uniform(0.0, 0.01))
        killed += status == -signal.SIGKILL
        for path in (out / ".partial").glob("*.safetensors"):
            place = (path.stat().st_ino, path.stat().st_mtime_ns)
            assert seen.setdefault(path.name, place) == place, f"{path.name} was written again"
        if status == 0:
            break
        assert not (out / "config.json").exists()
    assert killed >= 3
    assert run_child(large, out) == 0
    assert weights(out) == weights(tmp_path / "whole")
    assert len(seen) > 3
    for name, place in seen.items():
        assert ((out / name).stat().st_ino, (out / name).stat().st_mtime_ns) == place
    assert not (out / ".partial").exists()
    Checkpoint(out)


@pytest.fixture
def three(tmp_path: Path) -> Family:
    return family(tmp_path / "three", n=3)


def interrupt(monkeypatch: pytest.MonkeyPatch, files: int) -> list[str]:
    """Stop the writer when it begins one file more than `files`; the list fills with the files that are begun."""
    begin = outputs.Output.begin
    begun: list[str] = []

    def stop(self: outputs.Output, names: list[str]) -> None:
        if len(begun) == files:
            raise KeyboardInterrupt
        begun.extend(names)
        begin(self, names)

    monkeypatch.setattr(outputs.Output, "begin", stop)
    return begun


def test_the_report_of_a_resumed_merge_is_that_of_a_whole_one(three: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = merge(three.open(), "ties", folder=tmp_path / "whole", max_shard_bytes=300)
    with monkeypatch.context() as patch:
        interrupt(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            merge(three.open(), "ties", folder=tmp_path / "resumed", max_shard_bytes=300)
    begun = interrupt(monkeypatch, 100)
    assert merge(three.open(), "ties", folder=tmp_path / "resumed", max_shard_bytes=300) == whole
    assert len(begun) == len(weights(tmp_path / "whole")) - 1 - 3  # all but the index and the three that were there
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")


def test_another_recipe_or_another_input_starts_anew(three: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(scale: float) -> list[str]:
        with monkeypatch.context() as patch:
            begun = interrupt(patch, 2)
            with pytest.raises(KeyboardInterrupt):
                merge(three.open(), "task_arithmetic", {"scale": scale}, folder=tmp_path / "out", max_shard_bytes=300)
            return begun

    first = stopped(0.5)
    assert stopped(0.7) == first
    assert not set(stopped(0.7)) & set(first)
    write_checkpoint(three.folders["math"], three.specialists["instruction"])
    assert stopped(0.7) == first


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "journal", "stump"])
def test_what_was_damaged_meanwhile_is_written_again(three: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    merge(three.open(), "task_arithmetic", folder=tmp_path / "whole", max_shard_bytes=300)
    with monkeypatch.context() as patch:
        interrupt(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            merge(three.open(), "task_arithmetic", folder=tmp_path / "out", max_shard_bytes=300)
    partial = tmp_path / "out/.partial"
    file = sorted(partial.glob("*.safetensors"))[1]
    if damage == "flip":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "remove":
        file.unlink()
    elif damage == "journal":
        (partial / "journal.jsonl").write_text("{broken\n")
    else:
        journal = partial / "journal.jsonl"
        journal.write_text(journal.read_text()[:-10])
    merge(three.open(), "task_arithmetic", folder=tmp_path / "out", max_shard_bytes=300)
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_state_kept_elsewhere_is_left_to_the_caller(three: Family, tmp_path: Path) -> None:
    made = merge_many(three.open(), [(Recipe("model_soup"), tmp_path / "a"), (Recipe("dare"), tmp_path / "b")], state=tmp_path / "state")
    assert len(made) == 2
    assert not (tmp_path / "a/.partial").exists()
    before = (tmp_path / "a/model.safetensors").stat().st_ino
    assert json.loads((tmp_path / "state/0/journal.jsonl").read_text().splitlines()[1])["file"] == "model.safetensors"
    shutil.rmtree(tmp_path / "a")
    merge_many(three.open(), [(Recipe("model_soup"), tmp_path / "a"), (Recipe("dare"), tmp_path / "b")], state=tmp_path / "state")
    assert (tmp_path / "a/model.safetensors").stat().st_ino == before


def test_a_full_disk_is_an_error_in_a_sentence(three: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mergebench.checkpoints.shards.os.pwrite", full)
    with pytest.raises(MergebenchError, match=r"Cannot write .*model\.safetensors: No space left on device. Make room"):
        merge(three.open(), "model_soup", folder=tmp_path / "out")
