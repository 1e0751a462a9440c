"""RegMean++ on real forward passes, against its definition in float64."""

from __future__ import annotations

import pytest
import torch

from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.merging.engine import directions, merge
from mergebench.merging.models import Models
from mergebench.merging.statistics.decoder import StagedDecoder
from mergebench.merging.statistics.propagation import LayerInputs
from mergebench.merging.statistics.store import save_statistics
from mergebench.training.models import load_model
from tests.unit.statistics.grams import error, explicit

REDUCTION = 0.9


def opened(pico_base, folders, samples, state, *, batch_rows=3, **options) -> Models:
    models = Models.open(pico_base, folders, **options)
    models.propagation = LayerInputs(pico_base, samples, state, batch_rows=batch_rows)
    return models


def weights(folder) -> dict[str, torch.Tensor]:
    checkpoint = Checkpoint(folder)
    return {name: checkpoint.tensor(name).clone() for name in checkpoint.names}


def defined(pico_base, folders, samples) -> dict[str, torch.Tensor]:
    """The merged weights by the method's definition: whole float64 models, stage after stage, a solution for each layer alone."""
    specialists = {domain: weights(folder) for domain, folder in folders.items()}
    merged = {name: value.double() for name, value in weights(pico_base).items()}
    for part in ("embed_tokens", "layers.0.", "layers.1.", ""):
        stage = [name for name in merged if part in name and (part or not ("embed" in name or "layers" in name))]
        grams = {}
        for domain, tuned in specialists.items():
            model = load_model(pico_base, dtype=torch.float64)
            model.load_state_dict(merged | {name: tuned[name].double() for name in stage}, strict=False)
            grams[domain] = explicit(model, samples[domain])
        for name in stage:
            if name in grams["math"]:
                matrices = [found[name] * REDUCTION + found[name].diag().diag() * (1 - REDUCTION) for found in grams.values()]
                right = sum(gram @ tuned[name].double().T for gram, tuned in zip(matrices, specialists.values(), strict=True))
                value = torch.linalg.solve(sum(matrices), right).T
            else:
                value = sum(tuned[name].double() for tuned in specialists.values()) / len(specialists)
            merged[name] = value.float().double()
    return merged


def test_merged_weights_are_those_of_the_definition(pico_base, folders, samples, tmp_path):
    expected = defined(pico_base, folders, samples)
    merge(
        opened(pico_base, folders, samples, tmp_path / "state"), "regmean_plus_plus", {"reduction": REDUCTION}, folder=tmp_path / "merged"
    )
    found = weights(tmp_path / "merged")
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_the_first_layer_is_regmean_s(pico_base, folders, samples, tmp_path):
    """Its inputs have passed nothing but the embedding, which all models share."""
    files = []
    for domain, folder in folders.items():
        files.append(tmp_path / f"{domain}.safetensors")
        matrices = {name: value.float() for name, value in explicit(load_model(folder), samples[domain]).items()}
        save_statistics(files[-1], matrices, {"kind": "gram", "domain": domain})
    models = opened(pico_base, folders, samples, tmp_path / "state", statistics=files)
    expected = dict(directions(models, "regmean", {"reduction": REDUCTION}))
    found = dict(directions(models, "regmean_plus_plus", {"reduction": REDUCTION}))
    assert found.keys() == expected.keys()
    for name, direction in found.items():
        if "layers.0." in name or direction.dim() == 1:
            torch.testing.assert_close(direction, expected[name], rtol=1e-3, atol=1e-5)
    assert any(not torch.allclose(found[name], expected[name], rtol=1e-2) for name in found if "layers.1." in name)


def test_matrices_are_explicit_products(pico_base, folders, samples, tmp_path):
    """Of the first layer, with a specialist's weights in it."""
    inputs = LayerInputs(pico_base, samples, tmp_path, batch_rows=2)
    inputs.begin({})
    base, tuned = weights(pico_base), weights(folders["math"])
    embedding, first, *_ = inputs.stages(list(base))
    inputs.advance(0, {name: base[name] for name in embedding}, {})
    found = inputs.measure(1, "math", {name: tuned[name] for name in first})
    model = load_model(pico_base, dtype=torch.float64)
    model.load_state_dict({name: tuned[name] if name in first else value for name, value in base.items()}, strict=False)
    expected = explicit(model, samples["math"])
    assert found.keys() == {name for name in expected if name in first}
    assert max(error(found[name], expected[name]) for name in found) < 3e-6
    assert found["model.layers.0.mlp.up_proj.weight"] is found["model.layers.0.mlp.gate_proj.weight"]


def test_batches_change_nothing_beyond_rounding(pico_base, folders, samples, tmp_path):
    both = [
        dict(directions(opened(pico_base, folders, samples, tmp_path / str(rows), batch_rows=rows), "regmean_plus_plus")) for rows in (1, 7)
    ]
    for name, direction in both[0].items():
        torch.testing.assert_close(both[1][name], direction, rtol=1e-4, atol=2e-5)


def test_the_order_of_specialists_changes_nothing(pico_base, folders, samples, tmp_path):
    turned = [dict(reversed(list(each.items()))) for each in (folders, samples)]
    forth = dict(directions(opened(pico_base, folders, samples, tmp_path / "forth"), "regmean_plus_plus"))
    back = dict(directions(opened(pico_base, *turned, tmp_path / "back"), "regmean_plus_plus"))
    assert all(torch.equal(forth[name], back[name]) for name in forth)


def test_identical_specialists_come_out_unchanged(pico_base, folders, samples, tmp_path):
    same = {"math": folders["math"], "safety": folders["math"]}
    merge(opened(pico_base, same, samples, tmp_path / "state"), "regmean_plus_plus", folder=tmp_path / "merged")
    merged, expected = weights(tmp_path / "merged"), weights(folders["math"])
    for name in expected:
        torch.testing.assert_close(merged[name], expected[name], rtol=1e-5, atol=1e-5)


def test_one_stage_s_weights_are_in_memory(pico_base, folders, samples, tmp_path, monkeypatch):
    held = []

    def watch(decoder, stage, hidden, original=StagedDecoder.layer):
        held.append({name for name, (module, leaf) in decoder._owners.items() if module._parameters[leaf].device.type != "meta"})
        return original(decoder, stage, hidden)

    monkeypatch.setattr(StagedDecoder, "layer", watch)
    dict(directions(opened(pico_base, folders, samples, tmp_path), "regmean_plus_plus"))
    assert {frozenset(name.split(".")[2] for name in names) for names in held} == {frozenset("0"), frozenset("1")}


class Stop(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interrupted_merge_goes_on_with_the_same_bits(pico_base, folders, samples, tmp_path, monkeypatch, after):
    def run(name, state):
        return merge(opened(pico_base, folders, samples, tmp_path / state), "regmean_plus_plus", folder=tmp_path / name)

    whole = run("whole", "a")
    advanced = []

    def advance(self, stage, *given, original=LayerInputs.advance):
        if stage == after:
            raise Stop
        advanced.append(stage)
        original(self, stage, *given)

    with monkeypatch.context() as patch:
        patch.setattr(LayerInputs, "advance", advance)
        with pytest.raises(Stop):
            run("cut", "b")
    monkeypatch.setattr(LayerInputs, "advance", lambda *given, original=LayerInputs.advance: advanced.append(given[1]) or original(*given))
    again = run("cut", "b")
    assert advanced == [0, 1, 2, 3]  # no stage twice
    assert again["realised_digest"] == whole["realised_digest"]
    assert again["realised"] == whole["realised"]


def test_a_merge_does_not_go_on_from_another_s_layers(pico_base, folders, samples, tmp_path):
    other = dict(directions(opened(pico_base, folders, samples, tmp_path / "shared"), "regmean_plus_plus", {"reduction": 0.1}))
    after = dict(directions(opened(pico_base, folders, samples, tmp_path / "shared"), "regmean_plus_plus", {"reduction": 0.9}))
    alone = dict(directions(opened(pico_base, folders, samples, tmp_path / "alone"), "regmean_plus_plus", {"reduction": 0.9}))
    assert all(torch.equal(after[name], alone[name]) for name in alone)
    assert any(not torch.equal(other[name], alone[name]) for name in alone)


def test_lost_hidden_states_begin_the_merge_anew(pico_base, folders, samples, tmp_path, monkeypatch):
    whole = dict(directions(opened(pico_base, folders, samples, tmp_path / "a"), "regmean_plus_plus"))

    def measure(self, stage, *given, original=LayerInputs.measure):
        if stage == 2:
            raise Stop
        return original(self, stage, *given)

    with monkeypatch.context() as patch:
        patch.setattr(LayerInputs, "measure", measure)
        with pytest.raises(Stop):
            dict(directions(opened(pico_base, folders, samples, tmp_path / "b"), "regmean_plus_plus"))
    next((tmp_path / "b").rglob("hidden-*safety*")).unlink()
    found = dict(directions(opened(pico_base, folders, samples, tmp_path / "b"), "regmean_plus_plus"))
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_what_is_missing_is_named(pico_base, folders, tmp_path):
    with pytest.raises(MergebenchError, match=r"regmean_plus_plus passes calibration samples .* none were given"):
        list(directions(Models.open(pico_base, folders), "regmean_plus_plus"))
    with pytest.raises(MergebenchError, match="safety has no calibration samples"):
        LayerInputs(pico_base, {"safety": []}, tmp_path)


def test_another_layout_is_refused(examples, tmp_path):
    from transformers import GPT2Config

    GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=16).save_pretrained(tmp_path)
    with pytest.raises(MergebenchError, match=r"GPT2LMHeadModel .* does not keep embedding, layers, norm and head"):
        LayerInputs(tmp_path, {"safety": examples}, tmp_path)
