"""RegMean from measured Gram matrices, judged by the outputs of the very layers on the very inputs."""

from __future__ import annotations

import pytest
import torch

from mergebench.artifacts import Job
from mergebench.checkpoints.reader import Checkpoint
from mergebench.merging.engine import directions
from mergebench.merging.models import Models
from mergebench.merging.statistics import gram
from mergebench.merging.statistics.parts import Parts
from mergebench.merging.statistics.settings import Execution, GramSettings
from mergebench.merging.statistics.task import Task
from mergebench.training.models import load_model
from mergebench.training.preemption import Signals
from tests.unit.statistics.grams import inputs


@pytest.fixture(scope="module")
def models(pico_base, folders, samples, tmp_path_factory) -> Models:
    """Two specialists with the Gram matrices that the stage measures on their own rows."""
    files = []
    for domain, folder in folders.items():
        state = tmp_path_factory.mktemp(domain)
        parts = Parts(state / "gram", "0" * 64)
        parts.begin()
        base, specialist, job = Checkpoint(pico_base), Checkpoint(folder), Job("statistics", {}, {}, {}, state)
        task = Task(job, "gram", GramSettings(), Execution(), base, specialist, None, samples[domain], 0, parts, Signals())
        measured = gram.measure(task)
        files.append(state / "statistics.safetensors")
        parts.join(files[-1], measured.units, {"kind": "gram", "domain": domain, **measured.facts}, measured.aliases)
    return Models.open(pico_base, folders, statistics=files)


@pytest.fixture(scope="module")
def activations(folders, samples):
    """Domain -> inputs of each linear layer of its specialist, float64, recorded from whole models."""
    return {domain: inputs(load_model(folder, dtype=torch.float64), samples[domain]) for domain, folder in folders.items()}


def vectors(models: Models, name: str) -> dict[str, torch.Tensor]:
    base = models.base.tensor(name).double()
    return {domain: specialist.tensor(name).double() - base for domain, specialist in models.specialists.items()}


def loss(direction: torch.Tensor, taus: dict[str, torch.Tensor], rows: dict[str, torch.Tensor], reduction: float) -> float:
    """The objective with the reduced Gram matrix: `reduction` times the outputs' squared distance, and the rest by the inputs' energies."""
    total = 0.0
    for domain, tau in taus.items():
        rest, x = direction.double() - tau, rows[domain]
        outputs = (x @ rest.T).square().sum() / len(x)
        energies = (rest.square() * x.square().mean(0)).sum()
        total += float(reduction * outputs + (1 - reduction) * energies)
    return total


@pytest.mark.parametrize("reduction", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_no_layer_is_worse_than_averaged(models, activations, reduction):
    found = dict(directions(models, "regmean", {"reduction": reduction}))
    for name in activations["math"]:
        taus, rows = vectors(models, name), {domain: each[name] for domain, each in activations.items()}
        solved, averaged = (loss(each, taus, rows, reduction) for each in (found[name], sum(taus.values()) / len(taus)))
        assert solved < averaged * (1 + 1e-6)


def test_outputs_come_nearer_as_more_of_the_correlations_counts(models, activations):
    """What a bfloat16 pipeline loses: the distance of the outputs falls up to the exact regression."""
    name = "model.layers.1.mlp.down_proj.weight"
    taus, rows = vectors(models, name), {domain: each[name] for domain, each in activations.items()}
    losses = [loss(dict(directions(models, "regmean", {"reduction": r}))[name], taus, rows, 1.0) for r in (0.0, 0.3, 0.7, 0.9, 1.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]
