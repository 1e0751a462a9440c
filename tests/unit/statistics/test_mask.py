"""Localize-and-Stitch masks: exact gradients, exact density, an untouched base, and the same bits after an interruption."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from mergebench.artifacts import Interrupted, execute
from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.merging.statistics import mask as kind
from mergebench.merging.statistics import masked as vessel
from mergebench.merging.statistics import run as stage
from mergebench.merging.statistics.mask import batches, groups, initial_logits, initial_masks, pieces_of, threshold
from mergebench.merging.statistics.masked import MaskedModel, TaskVector, rounded_at_random
from mergebench.merging.statistics.objective import recompute_layers
from mergebench.merging.statistics.settings import MaskSettings
from mergebench.merging.statistics.store import Statistics
from mergebench.training.examples import collate
from mergebench.training.models import load_model
from tests.unit.statistics.test_run import data, job  # noqa: F401
from tests.unit.training.pico import write_pico

HOST = torch.device("cpu")


@pytest.fixture(scope="module")
def vector(pico_base, pico_specialist):
    base = Checkpoint(pico_base)
    return TaskVector(base, Checkpoint(pico_specialist), base.names)


def random_logits(vector, dtype=torch.float64):
    torch.manual_seed(0)
    return {name: torch.randn(vector.base.tensors[name].shape, dtype=dtype) for name in vector.names}


def masked_model(vector, logits, dtype=torch.float64, recompute=False):
    model = load_model(vector.base.folder, dtype=dtype).eval()
    if recompute:
        recompute_layers(model)
    found = MaskedModel(model, vector, logits, 0)
    found.refresh()
    return found


def autograd(vector, logits, rows, l1):
    """The objective and its gradient by the logits in float64: the definition, through transformers' own loss of a whole batch."""
    model = load_model(vector.base.folder, dtype=torch.float64)
    base = {name: vector.base.tensor(name).double() for name in vector.names}
    tau = {name: vector.specialist.tensor(name).double() - base[name] for name in vector.names}
    free = {name: logit.clone().requires_grad_() for name, logit in logits.items()}
    parameters = {name: base[name] + free[name].sigmoid() * tau[name] for name in free}
    loss = torch.func.functional_call(model, parameters, kwargs=collate(rows, 0) | {"use_cache": False}).loss
    objective = loss + l1 * sum(logit.sigmoid().sum() for logit in free.values())
    return float(loss.detach()), dict(zip(free, torch.autograd.grad(objective, list(free.values())), strict=True))


# A large rate: parameters get new values while the backward pass goes on, which must not see them.
@pytest.mark.parametrize(
    ("pieces", "rate", "recompute"), [(1, 0.25, False), (1, 1e4, False), (1, 1e4, True), (2, 1e4, True), (5, 1e4, False)]
)
def test_a_step_follows_the_gradient_of_the_objective(vector, examples, pieces, rate, recompute):
    logits = random_logits(vector)
    loss, gradients = autograd(vector, logits, examples[:5], 1e-3)
    before = {name: logit.clone() for name, logit in logits.items()}
    assert masked_model(vector, logits, recompute=recompute).step(examples[:5], pieces, 1e-3, rate) == pytest.approx(loss, rel=1e-6)
    for name, gradient in gradients.items():
        # Normalisation layers compute in float32, here and there.
        small = 1e-6 * float(gradient.abs().max()) + 1e-9
        torch.testing.assert_close((before[name] - logits[name]) / rate, gradient, rtol=1e-3, atol=small)


def test_the_penalty_lowers_every_logit_by_its_own_gradient(vector, examples):
    with_penalty, without = random_logits(vector), random_logits(vector)
    start = random_logits(vector)
    masked_model(vector, with_penalty).step(examples[:2], 1, 0.5, 1.0)
    masked_model(vector, without).step(examples[:2], 1, 0.0, 1.0)
    for name, logit in start.items():
        share = logit.sigmoid()
        torch.testing.assert_close(without[name] - with_penalty[name], 0.5 * share * (1 - share), rtol=1e-6, atol=1e-12)


def test_the_parameters_follow_the_logits(vector, examples):
    logits = random_logits(vector, torch.float32)
    masked = masked_model(vector, logits, torch.float32)
    for _ in range(2):
        masked.step(examples[:3], 2, 0.0, 5.0)
        for name, parameter in masked.model.named_parameters():
            base = vector.base.tensor(name)
            torch.testing.assert_close(parameter.detach(), base + logits[name].sigmoid() * (vector.specialist.tensor(name) - base))


def test_measuring_slopes_moves_nothing(vector, examples):
    logits = random_logits(vector)
    loss, largest = masked_model(vector, logits).slopes(examples[:4], 2, 1e-3)
    expected, gradients = autograd(vector, random_logits(vector), examples[:4], 1e-3)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert largest == pytest.approx(max(float(g.abs().max()) for g in gradients.values()), rel=1e-3)
    assert all(torch.equal(logit, random_logits(vector)[name]) for name, logit in logits.items())


@pytest.mark.parametrize("pieces", [1, 3])
def test_no_two_gradients_exist_at_a_time(vector, examples, pieces, monkeypatch):
    masked = masked_model(vector, random_logits(vector, torch.float32), torch.float32)
    alive = []

    def take(self, name, parameter, take=MaskedModel._take):
        alive.append(sum(p.grad is not None for p in self.model.parameters()))
        take(self, name, parameter)

    monkeypatch.setattr(MaskedModel, "_take", take)
    masked.step(examples[:3], pieces, 0.0, 1.0)
    assert set(alive) == {1}
    assert len(alive) == pieces * len(vector.names)
    assert not masked._sums
    assert all(p.grad is None for p in masked.model.parameters())


def test_a_mask_of_some_tensors_leaves_the_others_to_the_base(pico_base, pico_specialist, examples):
    base = Checkpoint(pico_base)
    chosen = [name for name in base.names if "mlp" in name]
    vector = TaskVector(base, Checkpoint(pico_specialist), chosen)
    masked = masked_model(vector, random_logits(vector, torch.float32), torch.float32)
    masked.step(examples[:2], 1, 0.0, 10.0)
    for name, parameter in masked.model.named_parameters():
        assert torch.equal(parameter.detach(), base.tensor(name)) == (name not in chosen)


def test_embedding_rows_that_the_base_lacks_are_left_out(pico_llama, examples, tmp_path):
    base = Checkpoint(pico_llama)
    tensors = {name: base.tensor(name) + 0.05 for name in base.names}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat([tensors[name], torch.ones(7, tensors[name].shape[1])])
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((pico_llama / "config.json").read_text())
    vector = TaskVector(base, Checkpoint(tmp_path), base.names)
    logits = initial_logits(vector, threshold(vector, 0.5), 5.0, torch.float32, HOST)
    masked_model(vector, logits, torch.float32).step(examples[:2], 1, 0.0, 1.0)
    assert {name: logit.shape for name, logit in logits.items()} == {name: info.shape for name, info in base.tensors.items()}


def small(folder, tau):
    """A task vector of given tensors, from a base of zeros."""
    opened = []
    for name, tensors in (("base", {n: torch.zeros_like(t) for n, t in tau.items()}), ("specialist", tau)):
        (folder / name).mkdir()
        save_file(tensors, folder / name / "model.safetensors", metadata={"format": "pt"})
        (folder / name / "config.json").write_text(json.dumps({"tie_word_embeddings": False}))
        opened.append(Checkpoint(folder / name))
    return TaskVector(*opened, sorted(tau))


def test_the_start_keeps_exactly_the_largest_share(tmp_path):
    vector = small(tmp_path, {"a": torch.tensor([[3.0, -5.0], [0.0, 1.0]]), "b": torch.tensor([5.0, -0.5, 2.0, 0.0, 5.0, 0.1])})
    logits = initial_logits(vector, threshold(vector, 0.4), 3.0, torch.float32, HOST)
    assert logits["a"].tolist() == [[3.0, 3.0], [-3.0, -3.0]]
    assert logits["b"].tolist() == [3.0, -3.0, -3.0, -3.0, 3.0, -3.0]


def test_ties_do_not_change_the_share_and_go_to_the_first(tmp_path):
    vector = small(tmp_path, {"a": torch.ones(60), "b": -torch.ones(40)})
    kept = dict(initial_masks(vector, threshold(vector, 0.75)))
    assert kept["a"].all()
    assert kept["b"].tolist() == [True] * 15 + [False] * 25


def test_what_was_not_changed_is_never_kept(tmp_path):
    vector = small(tmp_path, {"a": torch.tensor([1.0, 0.0, 0.0, 2.0])})
    assert dict(initial_masks(vector, threshold(vector, 1.0)))["a"].tolist() == [True, False, False, True]


def test_the_start_does_not_depend_on_pieces(vector, monkeypatch):
    cut = threshold(vector, 0.3)
    whole = dict(initial_masks(vector, cut))
    monkeypatch.setattr(vessel, "PIECE", 37)
    assert sum(int(kept.sum()) for kept in whole.values()) == round(0.3 * vector.entries)
    assert all(torch.equal(kept, whole[name]) for name, kept in initial_masks(vector, cut))


def test_a_step_does_not_depend_on_how_parameters_are_cut(vector, examples, monkeypatch):
    whole, cut = random_logits(vector, torch.float32), random_logits(vector, torch.float32)
    masked_model(vector, whole, torch.float32).step(examples[:4], 2, 1e-3, 3.0)
    monkeypatch.setattr(vessel, "PIECE", 101)
    masked_model(vector, cut, torch.float32).step(examples[:4], 2, 1e-3, 3.0)
    for name in whole:  # vectorised functions and those of single numbers differ by a rounding
        torch.testing.assert_close(whole[name], cut[name], rtol=1e-6, atol=1e-6)


def test_rounding_at_random_keeps_the_mean_and_goes_to_a_neighbour():
    values = torch.full((200_000,), 5.0 - 0.01)
    rounded = rounded_at_random(values, "key").float()
    assert set(rounded.unique().tolist()) == {4.96875, 5.0}
    assert float(rounded.mean()) == pytest.approx(4.99, abs=3e-4)  # six standard deviations
    assert torch.equal(rounded, rounded_at_random(values, "key").float())
    assert not torch.equal(rounded, rounded_at_random(values, "other").float())


@pytest.mark.parametrize("value", [0.0, -5.0, 3.25, 1e-30])
def test_rounding_at_random_leaves_what_is_exact(value):
    exact = torch.full((1000,), value).bfloat16()
    assert torch.equal(rounded_at_random(exact.float(), "key"), exact)


def test_narrow_logits_take_steps_smaller_than_their_spacing(vector, examples):
    logits = {name: torch.full(vector.base.tensors[name].shape, 5.0, dtype=torch.bfloat16) for name in vector.names}
    masked_model(vector, logits, torch.float32).step(examples[:2], 1, 1.0, 1.0)  # the penalty alone moves each by 0.0066
    moved = torch.cat([logit.flatten() for logit in logits.values()]) != 5.0
    assert 0.1 < float(moved.double().mean()) < 0.9


def test_every_example_comes_once_before_any_comes_again(examples):
    drawn = [row.id for rows, _ in zip(batches(examples, 5, seed=3), range(12), strict=False) for row in rows]
    for start in range(0, 60, 12):
        assert len(set(drawn[start : start + 12])) == 12


def test_a_batch_may_be_larger_than_the_data(examples):
    assert len(next(batches(examples[:3], 8, seed=0))) == 8


@pytest.mark.parametrize(("micro", "pieces"), [(1, 8), (3, 3), (8, 1), (20, 1), (None, 1)])
def test_the_pieces_of_a_batch(micro, pieces):
    assert pieces_of(MaskSettings(batch_size=8, micro_batch_size=micro)) == pieces


def test_groups_hold_every_tensor_once_and_stay_small(vector, monkeypatch):
    monkeypatch.setattr(kind, "GROUP", 4000)
    found = groups(vector)
    assert [name for group in found for name in group] == list(vector.names)
    assert len(found) > 2
    assert all(len(group) == 1 or sum(map(vector.base.size, group)) <= 4000 for group in found)


# -- the stage ---------------------------------------------------------------------------------------------------------


def mask_job(out, base, specialist, data, requested=None, **settings):  # noqa: F811
    chosen = {"steps": 6, "batch_size": 4, "learning_rate": 10.0, "density": 0.2, "bias": 3.0} | settings
    return replace(job(out, base, specialist, data, kinds=["mask"], settings={"mask": chosen}), requested=requested or {})


def facts_of(out):
    return json.loads((out / "manifest.json").read_text())["kinds"]["mask"]


def test_training_moves_the_mask_and_repeats_itself(pico_base, pico_specialist, data, tmp_path):  # noqa: F811
    for name in ("first", "second"):
        execute(stage, mask_job(tmp_path / name, pico_base, pico_specialist, data))
    assert facts_of(tmp_path / "first")["changed"] > 0
    for file in ("mask.safetensors", "manifest.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_the_mask_has_the_tensors_of_the_base_and_the_share_it_says(pico_base, pico_specialist, data, tmp_path):  # noqa: F811
    execute(stage, mask_job(tmp_path, pico_base, pico_specialist, data))
    stored, base = Statistics(tmp_path / "mask.safetensors"), Checkpoint(pico_base)
    masks = {name: stored.get(name) for name in stored.names()}
    assert {name: (mask.dtype, tuple(mask.shape)) for name, mask in masks.items()} == {
        name: (torch.bool, info.shape) for name, info in base.tensors.items()
    }
    entries = sum(mask.numel() for mask in masks.values())
    assert facts_of(tmp_path)["kept"] == pytest.approx(sum(int(mask.sum()) for mask in masks.values()) / entries, abs=1e-6)


def test_training_lowers_the_loss_of_the_masked_model(pico_base, pico_specialist, data, tmp_path):  # noqa: F811
    execute(stage, mask_job(tmp_path, pico_base, pico_specialist, data, steps=20, batch_size=8, micro_batch_size=None))
    assert facts_of(tmp_path)["last_loss"] < facts_of(tmp_path)["first_loss"]


def test_the_penalty_empties_the_mask_step_by_step(pico_base, pico_specialist, data, tmp_path):  # noqa: F811
    kept = []
    for l1 in (0.0, 1e-4, 1e-2, 1.0):
        out = tmp_path / f"{l1:g}"
        execute(stage, mask_job(out, pico_base, pico_specialist, data, l1=l1, micro_batch_size=None))
        kept.append(facts_of(out)["kept"])
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] < 0.5 * kept[0]


def test_rows_one_by_one_and_all_at_once_agree(pico_base, pico_specialist, data, tmp_path):  # noqa: F811
    for name, micro in (("one", 1), ("all", None)):
        execute(stage, mask_job(tmp_path / name, pico_base, pico_specialist, data, micro_batch_size=micro))
    one, whole = (Statistics(tmp_path / name / "mask.safetensors") for name in ("one", "all"))
    differing = sum(int((one.get(name) != whole.get(name)).sum()) for name in one.names())
    assert differing <= 1e-4 * facts_of(tmp_path / "one")["entries"]  # rounding may turn a logit next to zero


def test_half_precision_trains_too(pico_base, pico_specialist, data, tmp_path):  # noqa: F811
    execute(stage, mask_job(tmp_path / "wide", pico_base, pico_specialist, data))
    execute(stage, mask_job(tmp_path / "narrow", pico_base, pico_specialist, data, dtype="bfloat16"))
    wide, narrow = facts_of(tmp_path / "wide"), facts_of(tmp_path / "narrow")
    assert narrow["last_loss"] == pytest.approx(wide["last_loss"], rel=0.02)
    assert narrow["kept"] == pytest.approx(wide["kept"], rel=0.1)


def interrupted_at(monkeypatch, step, how):
    """Let `how` happen after so many steps; returns the list of steps begun."""
    taken = []

    def counted(self, *arguments, original=MaskedModel.step):
        result = original(self, *arguments)
        taken.append(self.steps)
        if self.steps == step:
            how()
        return result

    monkeypatch.setattr(MaskedModel, "step", counted)
    return taken


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_signal_saves_and_the_next_attempt_goes_on_to_the_same_bits(pico_base, pico_specialist, data, tmp_path, monkeypatch, dtype):  # noqa: F811
    execute(stage, mask_job(tmp_path / "whole", pico_base, pico_specialist, data, dtype=dtype))
    with monkeypatch.context() as patch:
        interrupted_at(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            execute(stage, mask_job(tmp_path / "cut", pico_base, pico_specialist, data, dtype=dtype))
    assert not (tmp_path / "cut" / "mask.safetensors").exists()
    with monkeypatch.context() as patch:
        taken = interrupted_at(patch, None, lambda: None)
        execute(stage, mask_job(tmp_path / "cut", pico_base, pico_specialist, data, dtype=dtype))
    assert taken == [3, 4, 5, 6]
    for file in ("mask.safetensors", "manifest.json"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


class _Killed(BaseException):
    """Stands for the end of the process: nothing that runs on an error runs."""


def test_a_kill_costs_no_more_than_was_not_saved(pico_llama, pico_specialist_llama, data, tmp_path, monkeypatch):  # noqa: F811
    arguments = (pico_llama, pico_specialist_llama, data)
    execute(stage, mask_job(tmp_path / "whole", *arguments))

    def die():
        raise _Killed

    with monkeypatch.context() as patch:
        interrupted_at(patch, 4, die)
        with pytest.raises(_Killed):
            execute(stage, mask_job(tmp_path / "cut", *arguments, {"save_seconds": 0}))
    with monkeypatch.context() as patch:
        taken = interrupted_at(patch, None, lambda: None)
        execute(stage, mask_job(tmp_path / "cut", *arguments))
    assert taken == [4, 5, 6]
    assert (tmp_path / "cut" / "mask.safetensors").read_bytes() == (tmp_path / "whole" / "mask.safetensors").read_bytes()


@pytest.fixture(scope="session")
def pico_specialist_llama(pico_llama, tmp_path_factory):
    """A specialist of `pico_llama`: another random model."""
    return write_pico(tmp_path_factory.mktemp("llama") / "pico" / "specialist_math" / "weights", "llama", seed=1)


def test_a_diverging_loss_is_reported(vector, examples):
    logits = {name: torch.full(vector.base.tensors[name].shape, float("nan")) for name in vector.names}
    with pytest.raises(MergebenchError, match="loss became nan at step 0; lower learning_rate"):
        masked_model(vector, logits, torch.float32).step(examples[:2], 1, 0.0, 1.0)


def test_a_specialist_with_other_tensors_is_refused(pico_llama, data, tmp_path):  # noqa: F811
    other = write_pico(tmp_path / "pico" / "specialist_math" / "weights", "gemma2")
    with pytest.raises(MergebenchError, match="specialist_math"):
        execute(stage, mask_job(tmp_path / "out", pico_llama, other, data))
