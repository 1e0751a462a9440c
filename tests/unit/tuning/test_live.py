"""Weights installed into a live model equal those that a merge writes to disk, bit for bit, and are proven to have taken effect."""

import pytest
import torch

from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.evaluation import backends
from mergebench.merging.engine import directions, merge
from mergebench.merging.models import Models
from mergebench.tuning.live import LiveWeights
from tests.unit.tuning.twins import CASES, family, measured


def load(folder):
    return backends.load("transformers", folder, dtype="float32", device="cpu")


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def models(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    base, specialists = family(folder, request.param)
    return Models.open(base, specialists, statistics=measured(folder, base))


@pytest.fixture(scope="module")
def lm(models):
    return load(models.base.folder)


@pytest.fixture(scope="module")
def live(models, lm):
    """One for all tests: what a test leaves in the model, the next one has to overwrite."""
    return LiveWeights(lm, models.base)


@pytest.mark.parametrize("method", CASES)
def test_live_equals_a_fresh_load_of_the_merge_on_disk(tmp_path, models, lm, live, method):
    parameters, scale = CASES[method]
    live.install(list(directions(models, method, parameters, seed=3)), 0.123)  # an earlier candidate leaves no trace
    digest = live.install(list(directions(models, method, parameters, seed=3)), scale)
    recipe = parameters if scale == 1.0 else {**parameters, "scale": scale}
    record = merge(models, method, recipe, folder=tmp_path / "merged", seed=3)
    assert digest == record["realised_digest"]
    other = load(tmp_path / "merged")
    fresh, installed = other.model.state_dict(), lm.model.state_dict()
    assert fresh.keys() == installed.keys()
    assert all(torch.equal(fresh[name], installed[name]) for name in fresh)
    assert live._probe.ask() == type(live._probe)(other).ask()


def test_the_output_head_follows(models, lm, live):
    """A tied head is the embedding, and must not keep the weights of the candidate before."""
    before = lm.model.get_output_embeddings().weight.clone()
    live.install(list(directions(models, "task_arithmetic", {})), 1.0)
    assert not torch.equal(lm.model.get_output_embeddings().weight, before)


def test_tensors_without_a_direction_are_the_bases(models, lm, live):
    live.install(list(directions(models, "task_arithmetic", {})), 1.0)
    live.install([], 1.0)
    state = lm.model.state_dict()
    assert all(torch.equal(state[name], models.base.tensor(name).float()) for name in models.base.names)


def test_threads_change_nothing(models, lm, live):
    direction = dict(directions(models, "task_arithmetic", {}))
    alone = live.install(direction, 0.7)
    live.install({}, 0.0)
    assert LiveWeights(lm, models.base, threads=3).install(direction, 0.7) == alone


def test_the_base_on_disk_is_untouched(models, live):
    content = (models.base.folder / "model.safetensors").read_bytes()
    live.install(list(directions(models, "task_arithmetic", {})), 1.0)
    assert (models.base.folder / "model.safetensors").read_bytes() == content


def test_a_model_of_another_kind_is_refused(tmp_path):
    base, _ = family(tmp_path / "a", "llama")
    other, _ = family(tmp_path / "b", "gemma2")
    with pytest.raises(MergebenchError, match="does not have"):
        LiveWeights(load(base), Checkpoint(other))


def test_other_weights_of_the_same_shape_than_the_loaded_ones_are_refused(tmp_path, models, lm, live):
    """The base is checked against what the engine loaded by itself."""
    merge(models, "task_arithmetic", {"scale": 0.5}, folder=tmp_path)
    live.install({}, 0.0)
    with pytest.raises(MergebenchError, match="base's own weights"):
        LiveWeights(lm, Checkpoint(tmp_path))


def test_a_merge_with_another_vocabulary_is_refused_before_anything_is_written(models, lm, live):
    live.install({}, 0.0)
    name = next(name for name in models.base.names if "embed_tokens" in name)
    rows, width = models.base.tensors[name].shape
    with pytest.raises(MergebenchError, match="changes the vocabulary"):
        live.install({name: torch.ones(rows - 1, width)}, 1.0)
    assert torch.equal(lm.model.state_dict()[name], models.base.tensor(name).float())


def test_a_candidate_that_overflows_is_refused(models, live):
    name = models.base.names[0]
    with pytest.raises(MergebenchError, match="not finite"):
        live.install({name: torch.full(models.base.tensors[name].shape, 3e38)}, 2.0)


def test_a_weight_that_changes_behind_its_back_is_found(models, lm, live):
    live.install(list(directions(models, "task_arithmetic", {})), 1.0)
    live.weights.check()
    with torch.no_grad():
        lm.model.model.layers[1].mlp.up_proj.weight[3, 2] += 1e-3
    with pytest.raises(MergebenchError, match="up_proj"):
        live.weights.check()


def test_a_model_that_goes_on_answering_with_old_weights_is_found(models, lm, live, monkeypatch):
    """Reading back cannot see what an engine computes with: only its answers show it."""
    direction = dict(directions(models, "task_arithmetic", {}))
    live.install(direction, 1.0)
    score = lm.score
    monkeypatch.setattr(lm, "score", lambda questions: [[(value + 1e-9, hit) for value, hit in row] for row in score(questions)])
    with pytest.raises(MergebenchError, match="otherwise than before with the same weights"):
        live.install(direction, 1.0)


def test_answers_that_stay_although_weights_change_are_looked_into(models, lm, live, monkeypatch):
    direction = dict(directions(models, "task_arithmetic", {}))
    live.install(direction, 1.0)
    stuck = live._probe.ask()
    asked = []
    check = live.weights.check
    monkeypatch.setattr(live._probe, "ask", lambda: stuck)
    monkeypatch.setattr(live.weights, "check", lambda *, thorough=False: (asked.append(thorough), check(thorough=thorough)))
    live.install(direction, 0.4)
    assert asked == [False, True]


def test_an_engine_that_answers_from_a_cache_is_found(lm, live, monkeypatch):
    score = lm.score

    def remembered(questions):
        lm.reused += 16
        return score(questions)

    monkeypatch.setattr(lm, "score", remembered)
    with pytest.raises(MergebenchError, match="from its cache"):
        live.install({}, 0.0)


def test_a_parameter_that_the_checkpoint_lacks_is_refused(models, lm, live):
    """Its value would be what the loader made up."""
    with pytest.raises(MergebenchError, match="got no value"):
        live.weights.install((name, models.base.tensor(name)) for name in models.base.names[1:])
    live.install({}, 0.0)
