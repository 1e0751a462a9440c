"""Digests of weights, and damage to a checkpoint that its manifest reveals."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mergebench.artifacts import damaged, inventory, write_json
from mergebench.checkpoints.digest import recorded_weights_digest, weights_digest
from tests.reference.pico import family


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A sharded checkpoint with its manifest beside it."""
    source = family(tmp_path / "source", n=1, shards=3).base_folder
    folder = tmp_path / "model" / "weights"
    shutil.copytree(source, folder)
    write_json(folder.parent / "manifest.json", {"files": inventory(folder)})
    return folder


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_the_digest_depends_on_contents_and_names(weights: Path) -> None:
    before = weights_digest(weights)
    (weights / "config.json").write_text("{}")
    assert weights_digest(weights) == before
    shard = weights / "model-00001-of-00003.safetensors"
    flip(shard)
    changed = weights_digest(weights)
    assert changed != before
    flip(shard)
    assert weights_digest(weights) == before
    shard.rename(weights / "model-00009-of-00003.safetensors")
    assert weights_digest(weights) not in (before, changed)


def test_the_recorded_digest_is_the_same(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = weights_digest(weights)
    monkeypatch.setattr("mergebench.checkpoints.digest.sha256_file", lambda path: pytest.fail(f"{path} was hashed again"))
    assert recorded_weights_digest(weights) == expected


@pytest.mark.parametrize("state", ["absent", "outdated"])
def test_without_a_sound_manifest_the_files_are_hashed(weights: Path, state: str) -> None:
    if state == "absent":
        (weights.parent / "manifest.json").unlink()
    else:
        (weights / "model-00002-of-00003.safetensors").write_bytes(b"other")
    assert recorded_weights_digest(weights) == weights_digest(weights)


def test_an_intact_folder_has_no_problem(weights: Path) -> None:
    assert damaged(weights.parent / "manifest.json", content=True) is None


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [(remove, "is missing"), (truncate, "truncated or changed"), (lengthen, "truncated or changed"), (flip, "has changed")],
)
def test_damage_is_found(weights: Path, damage, problem: str) -> None:
    damage(weights / "model-00002-of-00003.safetensors")
    found = damaged(weights.parent / "manifest.json", content=True)
    assert "model-00002-of-00003.safetensors" in found
    assert problem in found


def test_an_added_weights_file_is_found(weights: Path) -> None:
    """A loader would read it with the rest."""
    (weights / "model.safetensors").write_bytes(b"x")
    assert "model.safetensors is not listed" in damaged(weights.parent / "manifest.json")
