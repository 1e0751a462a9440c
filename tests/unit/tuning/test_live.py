"""Weights installed into a live model equal those that a merge writes to disk, bit for bit."""

import pytest
import torch

from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.merging.engine import directions, merge
from mergebench.merging.models import Models
from mergebench.tuning.live import LiveWeights
from tests.unit.tuning.twins import family

CASES = {
    "model_soup": ({}, 1.0),
    "task_arithmetic": ({}, 0.37),
    "ties": ({"density": 0.3}, 0.7),
    "dare": ({"density": 0.5}, 0.4),
    "consensus_ta": ({"thresholds": 0.3}, 0.6),
    "dataless_localize_and_stitch": ({"density": 0.2}, 1.0),
}


def load(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
@pytest.mark.parametrize("method", CASES)
def test_live_equals_a_fresh_load_of_the_merge_on_disk(tmp_path, kind, method):
    base, specialists = family(tmp_path, kind)
    models = Models.open(base, specialists)
    parameters, scale = CASES[method]
    live = load(base)
    weights = LiveWeights(live, models.base)
    weights.install(list(directions(models, method, parameters, seed=3)), 0.123)  # an earlier candidate leaves no trace
    weights.install(list(directions(models, method, parameters, seed=3)), scale)
    recipe = parameters if scale == 1.0 else {**parameters, "scale": scale}
    merge(models, method, recipe, folder=tmp_path / "merged", seed=3)
    fresh = load(tmp_path / "merged").state_dict()
    installed = live.state_dict()
    assert fresh.keys() == installed.keys()
    assert all(torch.equal(fresh[name], installed[name]) for name in fresh)


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_the_output_head_follows(tmp_path, kind):
    """A tied head is the embedding, and must not keep the weights of the candidate before."""
    base, specialists = family(tmp_path, kind)
    models = Models.open(base, specialists)
    live = load(base)
    before = live.get_output_embeddings().weight.clone()
    LiveWeights(live, models.base).install(list(directions(models, "task_arithmetic", {})), 1.0)
    assert not torch.equal(live.get_output_embeddings().weight, before)


def test_tensors_without_a_direction_are_the_bases(tmp_path):
    base, specialists = family(tmp_path, "llama")
    models = Models.open(base, specialists)
    live = load(base)
    weights = LiveWeights(live, models.base)
    weights.install(list(directions(models, "task_arithmetic", {})), 1.0)
    weights.install([], 1.0)
    state = live.state_dict()
    assert all(torch.equal(state[name], models.base.tensor(name).float()) for name in models.base.names)


def test_the_base_on_disk_is_untouched(tmp_path):
    base, specialists = family(tmp_path, "llama")
    content = (base / "model.safetensors").read_bytes()
    models = Models.open(base, specialists)
    LiveWeights(load(base), models.base).install(list(directions(models, "task_arithmetic", {})), 1.0)
    assert (base / "model.safetensors").read_bytes() == content


def test_a_model_of_another_kind_is_refused(tmp_path):
    base, _ = family(tmp_path / "a", "llama")
    other, _ = family(tmp_path / "b", "gemma2")
    with pytest.raises(MergebenchError, match="does not have"):
        LiveWeights(load(base), Checkpoint(other))
