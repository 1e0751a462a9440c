"""Fisher information against gradients taken label by label in double precision."""

import math

import pytest
import torch

from mergebench.errors import MergebenchError
from mergebench.merging.statistics import fisher as module
from mergebench.merging.statistics.fisher import Fisher, choose, draw, passes, tensor_units
from mergebench.merging.statistics.objective import recompute_layers
from mergebench.merging.statistics.settings import FisherSettings
from mergebench.training.examples import IGNORED, Example
from mergebench.training.models import load_model

EMPIRICAL = FisherSettings(labels="empirical")
SAMPLED = FisherSettings()


def _explicit(weights, examples, terms):
    """Mean over rows of sum p * (gradient of sum_t log p(y_t))^2 in float64; `terms` gives (p, labels by position) of a row."""
    model = load_model(weights).double()
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for example in examples:
        log_p = model(torch.tensor([example.input_ids]), use_cache=False).logits[0].log_softmax(-1)
        for p, targets in terms(example, log_p.detach()):
            likelihood = sum(log_p[t - 1, label] for t, label in targets)
            gradients = torch.autograd.grad(likelihood, list(parameters.values()), retain_graph=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                total[name] += p * gradient**2
    return {name: t / len(examples) for name, t in total.items()}


def _response(example):
    return [t for t, label in enumerate(example.labels) if label != IGNORED]


def _data_labels(example, _):
    return [(1.0, [(t, example.labels[t]) for t in _response(example)])]


def _every_label(example, log_p):
    return [(p, [(t, label)]) for t in _response(example) for label, p in enumerate(log_p[t - 1].exp().tolist())]


def _measure(model, examples, settings, seed=0, names=None):
    return _measure_as_it_is(model.eval().requires_grad_(False), examples, settings, seed, names)


def _measure_as_it_is(model, examples, settings, seed=0, names=None):
    fisher = Fisher(model, settings, seed)
    sums = {n: torch.zeros_like(p, dtype=torch.float32) for n, p in model.named_parameters() if names is None or n in names}
    for example in examples:
        fisher.add(example, sums)
    return {name: total / len(examples) for name, total in sums.items()}


def _assert_close(measured, expected, rtol=1e-4):
    """Each tensor to `rtol` of its entries, and to float32's rounding of its largest."""
    assert measured.keys() == expected.keys()
    for name, value in measured.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), expected[name], rtol=rtol, atol=1e-6 * float(expected[name].max()))


@pytest.fixture
def model(pico_base):
    return load_model(pico_base)


def test_empirical_fisher_equals_explicit_gradients(model, pico_base, examples):
    _assert_close(_measure(model, examples, EMPIRICAL), _explicit(pico_base, examples, _data_labels))


def test_as_many_labels_as_the_vocabulary_has_give_the_exact_expectation(model, pico_base, examples):
    settings = FisherSettings(labels="topk", k=10_000)
    _assert_close(_measure(model, examples[:1], settings), _explicit(pico_base, examples[:1], _every_label))


def test_fewer_labels_give_less_of_the_expectation_but_most_of_it(model, examples):
    few, more, all_of_them = (_measure(model, examples[:1], FisherSettings(labels="topk", k=k)) for k in (1, 8, 10_000))
    for name in few:
        assert bool((few[name] <= more[name]).all())
        assert bool((more[name] <= all_of_them[name] * (1 + 1e-5)).all())
    assert any(float(few[name].sum()) < 0.9 * float(all_of_them[name].sum()) for name in few)


def test_drawn_labels_give_the_expectation_of_the_row(pico_llama, examples):
    """Over many seeds the mean of the squared gradient of a whole row is the sum of its positions' expectations."""
    name, row, seeds = "model.norm.weight", examples[:1], 300
    exact = _explicit(pico_llama, row, _every_label)[name]
    model = load_model(pico_llama)
    drawn = torch.stack([_measure(model, row, SAMPLED, seed, names=[name])[name] for seed in range(seeds)]).double()
    error = (drawn.mean(0) - exact) / (drawn.std(0) / math.sqrt(seeds))
    assert float(error.abs().max()) < 4.5
    torch.testing.assert_close(drawn.mean(0).sum(), exact.sum(), rtol=0.15, atol=0.0)


def test_labels_are_chosen_with_their_probability():
    p = torch.tensor([0.5, 0.0, 0.3, 0.2])
    evenly = (torch.arange(1000, dtype=torch.float64)[:, None] + 0.5) / 1000
    assert choose(p.log().expand(1000, 4), evenly).bincount(minlength=4).tolist() == [500, 0, 300, 200]


def test_labels_of_a_long_response_are_drawn_in_pieces(monkeypatch, model):
    states = torch.randn(50, 32)
    whole = draw(model, states, 3, "row")
    monkeypatch.setattr(module, "POSITIONS", 9)
    assert torch.equal(draw(model, states, 3, "row"), whole)
    assert not torch.equal(draw(model, states, 3, "another row"), whole)


def test_the_order_of_rows_changes_nothing_but_rounding(model, examples):
    forwards, backwards = (_measure(model, rows, SAMPLED, 3) for rows in (examples, examples[::-1]))
    for name, value in forwards.items():
        torch.testing.assert_close(backwards[name], value, rtol=1e-5, atol=1e-12)


def test_the_seed_decides_the_sampled_labels(model, examples):
    first, again, other = (_measure(model, examples[:3], SAMPLED, seed)["model.norm.weight"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_model_stays_frozen(model, examples):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    _measure(model, examples[:3], SAMPLED)
    assert not model.training
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("settings", [SAMPLED, FisherSettings(labels="topk", k=2)], ids=["sampled", "topk"])
def test_activations_that_are_computed_again_give_the_same(model, examples, settings):
    kept = _measure(model, examples[:2], settings)
    recompute_layers(model.eval())
    again = _measure_as_it_is(model, examples[:2], settings)
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_a_group_gets_what_the_whole_model_gets(model, examples):
    whole = _measure(model, examples[:3], SAMPLED)
    for names in tensor_units(whole).values():
        group = _measure(model, examples[:3], SAMPLED, names=names)
        assert all(torch.equal(group[name], whole[name]) for name in names)


def test_gradients_never_coexist(model, examples):
    class Watching(dict):
        most = 0

        def __getitem__(self, name):
            # The hook frees its own gradient before it adds the square; no other may be there.
            self.most = max(self.most, sum(p.grad is not None for p in model.parameters()))
            return super().__getitem__(name)

    sums = Watching({n: torch.zeros_like(p) for n, p in model.named_parameters()})
    Fisher(model.eval().requires_grad_(False), SAMPLED).add(examples[0], sums)
    assert sums.most == 0
    assert all(float(total.sum()) > 0 for total in sums.values())


def test_a_model_in_bfloat16_is_squared_and_added_in_float32(pico_base, examples):
    exact = _explicit(pico_base, examples, _data_labels)
    measured = _measure(load_model(pico_base, dtype=torch.bfloat16), examples, EMPIRICAL)
    for name, value in measured.items():
        assert value.dtype == torch.float32
        assert float((value.double() - exact[name]).norm() / exact[name].norm()) < 0.1


def test_a_row_without_response_adds_nothing(model):
    row = Example("empty", [1, 5, 6], [IGNORED] * 3)
    assert all(float(value.sum()) == 0 for value in _measure(model, [row], SAMPLED).values())


def test_units_follow_the_forward_pass():
    names = ["lm_head.weight", "model.embed_tokens.weight", "model.layers.10.mlp.up_proj.weight", "model.layers.9.a", "model.norm.weight"]
    assert list(tensor_units(names)) == ["embedding", "layer.009", "layer.010", "head"]
    assert sorted(name for unit in tensor_units(names).values() for name in unit) == sorted(names)


def test_passes_hold_as_many_units_as_fit():
    assert list(passes({"a": 3, "b": 1, "c": 2, "d": 9, "e": 1}, 4)) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert list(passes({}, 4)) == []


def test_information_that_is_not_finite_is_refused():
    with pytest.raises(MergebenchError, match=r"norm\.weight has information that is not finite; set statistics\.fisher\.dtype"):
        module._mean("norm.weight", torch.tensor([1.0, math.inf]), 2)
