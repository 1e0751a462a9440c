"""Fisher information against gradients taken example by example in double precision."""

import pytest
import torch

from mergebench.merging.statistics.fisher import Fisher
from mergebench.training.examples import IGNORED
from mergebench.training.models import load_model


def _explicit(model, examples, labels_of):
    """Mean squared gradient of sum_t log p(y_t) in float64, one token's log-likelihood at a time."""
    model = model.double()
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for example in examples:
        log_p = model(torch.tensor([example.input_ids]), use_cache=False).logits[0].log_softmax(-1)
        targets = labels_of(example, log_p.detach())
        likelihood = sum(log_p[t - 1, label] for t, label in targets)
        for name, gradient in zip(parameters, torch.autograd.grad(likelihood, list(parameters.values())), strict=True):
            total[name] += gradient**2
    return {name: t / len(examples) for name, t in total.items()}


def _data_labels(example, _):
    return [(t, label) for t, label in enumerate(example.labels) if label != IGNORED]


@pytest.fixture
def model(pico_base):
    return load_model(pico_base)


def test_empirical_fisher_equals_explicit_gradients(model, pico_base, examples):
    fisher = Fisher(model, "empirical")
    fisher.add(examples)
    expected = _explicit(load_model(pico_base), examples, _data_labels)
    measured = fisher.result()
    assert measured.keys() == expected.keys()
    for name, value in measured.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), expected[name], rtol=2e-3, atol=1e-10)


def test_sampled_labels_average_to_the_exact_expectation(model, examples):
    """For the output positions of one example, E_y[(d log p(y) / d logits)^2] = p (1 - p): drawn labels must agree."""
    example = examples[0]
    logits = model(torch.tensor([example.input_ids]), use_cache=False).logits[0, -2].detach()
    p = logits.softmax(-1)
    total = torch.zeros_like(p)
    fisher = Fisher(model, "sampled")
    for seed in range(3000):
        fisher.seed = seed
        label = fisher._sample(logits[None], example.id)
        one_hot = torch.nn.functional.one_hot(label[0], p.numel())
        total += (one_hot - p) ** 2
    torch.testing.assert_close(total / 3000, p * (1 - p), rtol=0.5, atol=0.01)


def test_the_result_does_not_depend_on_batches_or_order(pico_base, examples):
    whole, parts = (Fisher(load_model(pico_base), "sampled", seed=3) for _ in range(2))
    whole.add(examples)
    for start in range(0, len(examples), 5):
        parts.add(list(reversed(examples))[start : start + 5])
    assert parts.examples == whole.examples == len(examples)
    for name, value in whole.result().items():
        torch.testing.assert_close(parts.result()[name], value, rtol=1e-5, atol=1e-12)


def test_the_seed_decides_the_sampled_labels(model, examples):
    results = []
    for seed in (0, 0, 1):
        fisher = Fisher(model, "sampled", seed)
        fisher.add(examples[:3])
        results.append(fisher.result()["model.norm.weight"])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_the_model_stays_frozen(model, examples):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    Fisher(model).add(examples[:3])
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())
