"""`mergebench inspect` against sums over whole vectors in float64."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path

import pytest
import torch

from mergebench.checkpoints.reader import Checkpoint
from mergebench.cli import main
from mergebench.merging.inspect import compare, kind_of
from tests.reference.pico import Family, family, shapes, write_checkpoint


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return family(tmp_path_factory.mktemp("family"), n=3, dtype=request.param)


def vectors(found: Family, kind: str | None = None) -> dict[str, torch.Tensor]:
    """The task vectors, flat, float64; of one kind of layer or of all."""
    names = [name for name in sorted(found.base) if kind in (None, kind_of(name))]
    return {
        domain: torch.cat([(tensors[name].float() - found.base[name].float()).double().flatten() for name in names])
        for domain, tensors in found.specialists.items()
    }


@pytest.mark.parametrize("kind", [None, "mlp.up_proj.weight", "norm.weight", "gain"])
def test_sums_are_those_of_whole_vectors(found: Family, kind: str | None) -> None:
    record = compare(Checkpoint(found.base_folder), {d: Checkpoint(p) for d, p in found.folders.items()}, density=0.2, threads=2)
    part = record["kinds"][kind] if kind else record
    own = vectors(found, kind)
    # The largest fifth of the whole vector, with all that equal the smallest of them.
    whole = {d: v.abs() for d, v in vectors(found).items()}
    limits = {d: float(v.sort(descending=True).values[round(0.2 * v.numel()) - 1]) for d, v in whole.items()}
    assert record["thresholds"] == pytest.approx(limits)
    for domain, vector in own.items():
        assert part["norms"][domain] == pytest.approx(float(vector.norm()))
        assert part["zero_fractions"][domain] == pytest.approx(float(vector.eq(0).double().mean()))
    for pair, (a, b) in zip(part["pairs"], combinations(sorted(own), 2), strict=True):
        assert pair["models"] == [a, b]
        cosine = float(own[a] @ own[b] / (own[a].norm() * own[b].norm()))
        assert pair["cosine"] == (None if math.isnan(cosine) else pytest.approx(cosine, abs=1e-12))
        assert pair["sign_conflicts"] == pytest.approx(float((own[a] * own[b] < 0).double().mean()))
        large = [own[domain].abs() >= limits[domain] for domain in (a, b)]
        smaller = min(int(mask.sum()) for mask in large)
        assert pair["overlap"] == (pytest.approx(int((large[0] & large[1]).sum()) / smaller) if smaller else None)


def test_threads_change_nothing(found: Family) -> None:
    models = {domain: Checkpoint(path) for domain, path in found.folders.items()}
    once, again = (compare(Checkpoint(found.base_folder), models, density=0.1, threads=threads) for threads in (1, 4))
    assert once == again


def test_kinds_of_layers() -> None:
    kinds = {kind_of(name) for name in shapes()}
    assert kinds == {
        "embed_tokens.weight",
        "lm_head.weight",
        "norm.weight",
        "gain",
        "mlp.up_proj.weight",
        "mlp.down_proj.weight",
        "self_attn.q_proj.weight",
        "self_attn.q_proj.bias",
    }


def test_the_table_names_models_pairs_and_kinds(found: Family, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", *map(str, found.folders.values()), "--base", str(found.base_folder), "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    for text in ("specialist_math - specialist_multilingual", "mlp.up_proj.weight", "overlap of the largest 10%", "audit: nothing to note"):
        assert text in printed


def test_json(found: Family, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", *map(str, found.folders.values()), "--base", str(found.base_folder), "--json", "--density", "0.3"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["task_vectors"]["density"] == 0.3
    assert record["models"]["specialist_math"]["parameters"] == sum(value.nelement() for value in found.base.values())


def test_without_a_base_headers_alone_are_compared(found: Family, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", *map(str, found.folders.values())]) == 0
    assert "task vector" not in capsys.readouterr().out


def test_models_that_cannot_be_merged_are_said_to_be(found: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_checkpoint(tmp_path / "other", {name: value for name, value in found.base.items() if "down_proj" not in name})
    assert main(["inspect", str(other), "--base", str(found.base_folder)]) == 0
    printed = capsys.readouterr().out
    assert "cannot be merged: other lacks 2 tensors" in printed
    assert "task vector" not in printed


def test_folders_of_one_name_are_told_apart(found: Family, capsys: pytest.CaptureFixture[str]) -> None:
    twice = [str(found.folders["math"])] * 2
    assert main(["inspect", *twice, "--base", str(found.base_folder), "--json"]) == 0
    (pair,) = json.loads(capsys.readouterr().out)["task_vectors"]["pairs"]
    assert pair["models"] == ["specialist_math#1", "specialist_math#2"]
    assert pair["cosine"] == pytest.approx(1)
    assert pair["overlap"] == 1


@pytest.mark.parametrize("density", ["0", "1.5", "-1"])
def test_a_density_is_a_fraction(found: Family, density: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(found.folders["math"]), "--density", density]) == 1
    assert "--density" in capsys.readouterr().err
