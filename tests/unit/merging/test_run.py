"""The merge stage: inputs paired by what they are, parameters from tuning, and a traceable result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from mergebench.artifacts import Job, execute, inventory, read_json, write_json
from mergebench.checkpoints.digest import weights_digest
from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.merging import run
from mergebench.merging.engine import apply, directions
from mergebench.merging.models import Models
from mergebench.merging.statistics.store import save_statistics
from mergebench.vectors import run as vectors
from tests.reference.pico import Family, family

DOMAINS = ["instruction", "math", "coding"]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Family:
    """Three specialists of the domains above, with spectra and statistics where the workflow puts them."""
    folder = tmp_path_factory.mktemp("family")
    found = family(folder, n=3)
    found.folders["coding"] = found.folders.pop("multilingual")
    found.specialists["coding"] = found.specialists.pop("multilingual")
    for domain in DOMAINS:
        spectra = folder / "vectors" / "pico" / domain
        outputs = {"manifest": spectra / "manifest.json", "spectrum": spectra / "spectrum.npz"}
        inputs = {"base": found.base_folder, "specialist": found.folders[domain]}
        execute(vectors, Job("vectors", {"base": "pico", "domain": domain}, inputs, outputs, folder / "state"))
        for kind in ("fisher", "gram", "mask"):
            path = folder / "statistics" / "pico" / domain / kind / "statistics.safetensors"
            path.parent.mkdir(parents=True)
            measured = found.statistics[kind, "multilingual" if domain == "coding" else domain]
            save_statistics(path, measured, {"kind": kind, "domain": domain})
            write_json(path.parent / "manifest.json", {"files": inventory(path)})
    return found


def job(found: Family, folder: Path, spec: dict[str, Any], **inputs: Any) -> Job:
    root = found.base_folder.parent
    given = {
        "base": found.base_folder,
        "specialists": [found.folders[domain] for domain in DOMAINS],
        "spectra": sorted(root.glob("vectors/*/*/manifest.json")),
        "statistics": sorted(root.glob("statistics/*/*/*/manifest.json")),
    }
    outputs = {"manifest": folder / "manifest.json", "weights": folder / "weights", "cost": folder / "cost.json"}
    return Job("merge", {"base": "pico", "domains": DOMAINS, **spec}, given | inputs, outputs, folder / "state")


@pytest.mark.parametrize("method", ["ties", "fisher", "regmean", "localize_and_stitch", "consensus_ta"])
def test_the_manifest_says_what_was_done(found: Family, tmp_path: Path, method: str) -> None:
    execute(run, job(found, tmp_path, {"method": method, "parameters": None, "scope": "all", "seed": 0, "dtype": None}))
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["recipe"]["method"] == method
    assert manifest["recipe"]["domains"] == sorted(DOMAINS)
    assert manifest["weights_digest"] == weights_digest(tmp_path / "weights")
    assert manifest["input_digests"] == {
        "base": weights_digest(found.base_folder),
        **{domain: weights_digest(found.folders[domain]) for domain in DOMAINS},
    }
    assert manifest["realised"]["parameters"] == sum(tensor.numel() for tensor in found.base.values())
    assert 0 < manifest["realised"]["sign_conflict_rate"] < 1
    assert "algorithm" in read_json(tmp_path / "cost.json")["timing"]


def test_the_order_of_the_inputs_changes_nothing(found: Family, tmp_path: Path) -> None:
    """The released code paired the models with another order of data; here nothing depends on an order."""
    first = job(found, tmp_path / "a", {"method": "regmean"})
    second = job(found, tmp_path / "b", {"method": "regmean"})
    second.spec["domains"] = DOMAINS[::-1]
    second.inputs |= {name: second.inputs[name][::-1] for name in ("specialists", "spectra", "statistics")}
    execute(run, first)
    execute(run, second)
    assert weights_digest(tmp_path / "a/weights") == weights_digest(tmp_path / "b/weights")


def test_what_tuning_chose_is_used(found: Family, tmp_path: Path) -> None:
    best = tmp_path / "best.yaml"
    thresholds = {"instruction": 0.2, "math": 0.6, "coding": 0.3}
    best.write_text(yaml.safe_dump({"parameters": {"thresholds": thresholds, "scale": 0.7}, "objective": 0.5, "candidates": 35}))
    execute(run, job(found, tmp_path, {"method": "consensus_ta", "parameters": {"agreement": 1, "scale": 0.1}}, best=[best]))
    assert read_json(tmp_path / "manifest.json")["recipe"]["parameters"] == {
        "thresholds": thresholds,
        "agreement": 1,
        "only": None,
        "scale": 0.7,
    }
    merged = Checkpoint(tmp_path / "weights")
    models = Models.open(found.base_folder, found.folders)
    for name, direction in directions(models, "consensus_ta", {"thresholds": thresholds, "agreement": 1}):
        assert torch.equal(merged.tensor(name), apply(found.base[name], direction, 0.7))


@pytest.mark.parametrize("content", ["", "{objective: 1}", "[1]", "parameters: [", "parameters: 3"])
def test_a_broken_choice_is_refused(found: Family, tmp_path: Path, content: str) -> None:
    best = tmp_path / "best.yaml"
    best.write_text(content)
    with pytest.raises(MergebenchError, match=r"best\.yaml does not hold the parameters"):
        execute(run, job(found, tmp_path, {"method": "ties"}, best=[best]))


def test_a_spectrum_of_other_weights_is_refused(found: Family, tmp_path: Path) -> None:
    other = family(tmp_path / "other", n=1, seed=9).folders["instruction"]
    specialists = [other, *(found.folders[domain] for domain in DOMAINS[1:])]
    with pytest.raises(MergebenchError, match="The spectrum of instruction was measured on other weights"):
        execute(run, job(found, tmp_path, {"method": "ties"}, specialists=specialists))


def test_a_truncated_specialist_is_refused_and_nothing_is_published(found: Family, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    save_file(found.specialists["math"], (broken.mkdir() or broken) / "model.safetensors")
    (broken / "config.json").write_bytes((found.base_folder / "config.json").read_bytes())
    content = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(MergebenchError, match="truncated"):
        execute(run, job(found, tmp_path / "out", {"method": "ties"}, specialists=[broken, broken, broken], spectra=[]))
    assert not (tmp_path / "out/weights").exists()
    assert not (tmp_path / "out/manifest.json").exists()


def test_as_many_specialists_as_domains(found: Family, tmp_path: Path) -> None:
    with pytest.raises(MergebenchError, match="3 domains but 1 specialists"):
        execute(run, job(found, tmp_path, {"method": "ties"}, specialists=[found.base_folder]))


def test_extra_vocabulary_rows_are_dropped_on_request(tmp_path: Path) -> None:
    found = family(tmp_path, n=2)
    merge = {"method": "task_arithmetic", "domains": ["instruction", "math"], "parameters": {"scale": 1.0}}
    narrow = job_of_two(found, tmp_path / "narrow", merge)
    execute(run, narrow)
    wide = dict(found.specialists["math"])
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        wide[name] = torch.cat([wide[name], torch.ones(3, 6)])
    save_file(wide, found.folders["math"] / "model.safetensors")
    with pytest.raises(MergebenchError, match="14 rows"):
        execute(run, job_of_two(found, tmp_path / "wide", merge))
    execute(run, job_of_two(found, tmp_path / "wide", {**merge, "vocabulary": "base"}))
    assert weights_digest(tmp_path / "wide/weights") == weights_digest(tmp_path / "narrow/weights")


def test_extra_rows_of_a_statistic_are_dropped_with_the_weights(tmp_path: Path) -> None:
    found = family(tmp_path, n=2)
    narrow = dict(directions(found.open(), "fisher"))
    embeddings = ("model.embed_tokens.weight", "lm_head.weight")
    wide, measured = dict(found.specialists["math"]), dict(found.statistics["fisher", "math"])
    for name in embeddings:
        wide[name], measured[name] = torch.cat([wide[name], torch.ones(3, 6)]), torch.cat([measured[name], torch.ones(3, 6)])
    save_file(wide, found.folders["math"] / "model.safetensors")
    save_statistics(tmp_path / "fisher_math.safetensors", measured, {"kind": "fisher", "domain": "math"})
    models = Models.open(found.base_folder, found.folders, statistics=found.files, vocabulary="base")
    for name, direction in directions(models, "fisher"):
        assert torch.equal(direction, narrow[name]), name


def job_of_two(found: Family, folder: Path, spec: dict[str, Any]) -> Job:
    inputs = {"base": found.base_folder, "specialists": [found.folders["instruction"], found.folders["math"]]}
    outputs = {"manifest": folder / "manifest.json", "weights": folder / "weights"}
    return Job("merge", spec, inputs, outputs, folder / "state")


def test_a_merge_needs_a_specialist(found: Family) -> None:
    with pytest.raises(MergebenchError, match="at least one specialist"):
        Models.open(found.base_folder, {})
