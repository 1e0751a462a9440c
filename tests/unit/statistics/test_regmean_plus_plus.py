"""RegMean++ as a stage: the rows of each specialist's own domain, from the training sets' manifests to the merged model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergebench.artifacts import Job, execute, inventory, read_json, write_json
from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.merging import run as stage
from mergebench.merging.engine import merge
from mergebench.merging.models import Models
from mergebench.merging.statistics.calibration import calibration_examples, subset
from mergebench.merging.statistics.propagation import LayerInputs
from mergebench.storage.weights import drop, make_again
from mergebench.training.export import export_weights
from mergebench.training.models import load_model
from tests.unit.training.pico import pico_tokenizer, sums, write_pico, write_rows

DOMAINS = ["math", "safety"]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory) -> Path:
    """A base, two specialists and their training sets, where the workflow puts them."""
    folder = tmp_path_factory.mktemp("campaign")
    base = write_pico(folder / "models/pico/base/weights", "gemma2")
    write_json(base.parent / "manifest.json", {"files": inventory(base)})
    for seed, domain in enumerate(DOMAINS):
        model = load_model(base)
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        weights = folder / f"models/pico/specialist_{domain}/weights"
        weights.mkdir(parents=True)
        export_weights(model.state_dict(), base, weights)
        write_json(weights.parent / "manifest.json", {"files": inventory(weights), "domains": [domain]})
        write_rows(folder / f"data/train_{domain}", sums(4), calibration=sums(9, 4 + 9 * seed))
    return folder


def job(campaign, out, **changes) -> Job:
    calibration = {"rows": 8, "max_length": 64, "template": "chat", "settings": {"rows": 6}}
    spec = {"base": "pico", "method": "regmean_plus_plus", "domains": DOMAINS, "seed": 3, "calibration": calibration}
    inputs = {
        "base": campaign / "models/pico/base/weights",
        "specialists": [campaign / f"models/pico/specialist_{domain}/weights" for domain in DOMAINS],
        "calibration": [campaign / f"data/train_{domain}/manifest.json" for domain in DOMAINS],
    }
    outputs = {"manifest": out / "manifest.json", "weights": out / "weights"}
    return Job("merge", spec, inputs | changes, outputs, out / "state")


def test_each_specialist_gets_its_own_rows(campaign, tmp_path):
    asked = job(campaign, tmp_path)
    before = inventory(campaign)
    execute(stage, asked)
    assert inventory(campaign) == before
    rows = {
        domain: subset(calibration_examples(pico_tokenizer(), manifest, 8, 64, 3), 6, 3)
        for domain, manifest in zip(DOMAINS, asked.inputs["calibration"], strict=True)
    }
    assert [row.input_ids for row in rows["math"]] != [row.input_ids for row in rows["safety"]]
    models = Models.open(asked.inputs["base"], dict(zip(DOMAINS, asked.inputs["specialists"], strict=True)))
    models.propagation = LayerInputs(asked.inputs["base"], rows, tmp_path / "own")
    expected = merge(models, "regmean_plus_plus", folder=tmp_path / "expected", seed=3)
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["realised_digest"] == expected["realised_digest"]
    assert manifest["calibration"] == {
        domain: {"rows": 6, "tokens": sum(len(row.input_ids) for row in found)} for domain, found in rows.items()
    }


def test_the_order_of_manifests_and_specialists_changes_nothing(campaign, tmp_path):
    forth, back = job(campaign, tmp_path / "forth"), job(campaign, tmp_path / "back")
    back.spec["domains"] = DOMAINS[::-1]
    back.inputs["specialists"] = forth.inputs["specialists"][::-1]
    for each in (forth, back):
        execute(stage, each)
    assert (tmp_path / "forth/weights/model.safetensors").read_bytes() == (tmp_path / "back/weights/model.safetensors").read_bytes()


def test_a_killed_merge_goes_on(campaign, tmp_path, monkeypatch):
    execute(stage, job(campaign, tmp_path / "whole"))
    advanced = []

    def advance(self, at, *given, original=LayerInputs.advance):
        advanced.append(at)
        if len(advanced) == 3:
            raise KeyboardInterrupt
        original(self, at, *given)

    monkeypatch.setattr(LayerInputs, "advance", advance)
    with pytest.raises(KeyboardInterrupt):
        execute(stage, job(campaign, tmp_path / "cut"))
    execute(stage, job(campaign, tmp_path / "cut"))
    assert advanced == [0, 1, 2, 2, 3]
    assert not (tmp_path / "cut/state").exists()
    assert (tmp_path / "cut/manifest.json").read_bytes() == (tmp_path / "whole/manifest.json").read_bytes()


def test_a_base_with_fewer_embedding_rows(campaign, tmp_path):
    """As the published Llama-3.2-3B_math, whose rows beyond the base's are dropped."""
    wide = tmp_path / "models/pico/specialist_math/weights"
    wide.mkdir(parents=True)
    model = load_model(campaign / "models/pico/specialist_math/weights")
    model.resize_token_embeddings(model.config.vocab_size + 3)
    model.save_pretrained(wide)
    pico_tokenizer().save_pretrained(wide)
    same = job(campaign, tmp_path / "same")
    execute(stage, same)
    asked = job(campaign, tmp_path / "wide", specialists=[wide, same.inputs["specialists"][1]])
    asked.spec["vocabulary"] = "base"
    execute(stage, asked)
    found, expected = (Checkpoint(tmp_path / name / "weights") for name in ("wide", "same"))
    for name in expected.names:
        torch.testing.assert_close(found.tensor(name), expected.tensor(name), rtol=1e-5, atol=1e-6)


def test_wrong_rows_are_refused(campaign, tmp_path):
    manifests = job(campaign, tmp_path).inputs["calibration"]
    with pytest.raises(MergebenchError, match="given calibration rows of math; safety needs those of its own training set"):
        execute(stage, job(campaign, tmp_path, calibration=manifests[:1]))
    swapped = [campaign / f"models/pico/specialist_{domain}/weights" for domain in DOMAINS[::-1]]
    with pytest.raises(MergebenchError, match="expected pico/specialist_math"):
        execute(stage, job(campaign, tmp_path, specialists=swapped))
    changed = write_rows(tmp_path / "train_safety", sums(4), calibration=sums(9, 13))
    with changed.with_name("calibration.jsonl").open("a") as stream:
        stream.write('{"id": "x", "prompt": "1", "response": "2"}\n')
    with pytest.raises(MergebenchError, match=r"SHA-256|bytes"):
        execute(stage, job(campaign, tmp_path, calibration=[manifests[0], changed]))


def test_rows_that_share_text_with_a_benchmark_are_left_out(campaign, tmp_path):
    hits = tmp_path / "decontamination/train_safety/hits.jsonl"
    hits.parent.mkdir(parents=True)
    hits.write_text('{"id": "sum-3"}\n{"id": "sum-5"}\n')
    asked = job(campaign, tmp_path / "out", hits=[hits])
    asked.spec["calibration"] = {"max_length": 64, "settings": {"rows": None}}
    execute(stage, asked)
    found = read_json(tmp_path / "out/manifest.json")["calibration"]
    assert {domain: facts["rows"] for domain, facts in found.items()} == {"math": 9, "safety": 7}


def test_dropped_weights_are_made_again(campaign, tmp_path):
    folder = campaign / "models/pico/merged_regmean_plus_plus"
    execute(stage, job(campaign, folder))
    whole = (folder / "weights/model.safetensors").read_bytes()
    drop(folder / "weights", tmp_path)
    assert not (folder / "weights/model.safetensors").exists()
    make_again(folder / "weights", 1, tmp_path / "state")
    assert (folder / "weights/model.safetensors").read_bytes() == whole
