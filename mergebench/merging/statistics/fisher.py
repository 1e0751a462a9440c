"""Diagonal Fisher information of a language model (Matena & Raffel, 2022).

For one row with prompt x and response positions t, let g_t(y) be the gradient of log p(y | x, y_<t), where y_<t is the data's response.
The Fisher information of the row is F = sum_t sum_y p(y | x, y_<t) g_t(y)^2, and the statistic is the mean of F over rows. A row
whose response is long counts more than one whose response is short, as in the likelihood itself. Three values of `labels`:

- ``sampled``: a label is drawn from p at each position, and (sum_t g_t(y_t))^2 is taken: one gradient per row. The labels are
  drawn independently and E_y[g_t(y)] = 0, so that the cross terms vanish in expectation, and what is left is F. Without bias, for any row.
- ``topk``: F itself, with the inner sum over the `k` most likely labels, whose probabilities are not scaled up: every label
  adds to it, and with as many as the vocabulary has it is exact. It takes a gradient per position and label.
- ``empirical``: the labels of the data in place of drawn ones. Not the Fisher information, for the data are not drawn from the model.

Gradients are squared row by row, so the statistic cannot depend on how rows are batched, and as soon as they appear, so that those
of the whole model never coexist. Only the tensors of the group in progress ask for a gradient.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mergebench.errors import MergebenchError
from mergebench.merging.statistics.objective import logits, negative_log_likelihood, recompute_layers, response_states
from mergebench.merging.statistics.settings import FisherSettings
from mergebench.merging.statistics.sums import Tensors, sum_rows
from mergebench.merging.statistics.task import Measured, Task
from mergebench.training.examples import Example

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
POSITIONS = 256  # positions whose distributions are held in float64 at once
KEPT = 34  # numbers per token, layer and hidden unit that a backward pass keeps, about, scores of attention not counted


def measure(task: Task) -> Measured:
    """The Fisher information of a task's specialist, a part per layer, in as few passes over the rows as memory allows."""
    settings: FisherSettings = task.settings
    model = task.load(DTYPES[settings.dtype])
    parameters = dict(model.named_parameters())
    units = tensor_units(parameters)
    left = [unit for unit in units if not task.finished(unit)]
    room = task.room()
    inside, between = activations(model, max(len(example.input_ids) for example in task.examples))
    layers = model.config.num_hidden_layers
    if layers * inside > room:
        recompute_layers(model)
        task.memory("activations", inside + layers * between)
    else:
        task.memory("activations", layers * inside)
    # On the host, the sums of all rows lie beside those of the rows in progress.
    most = room // (4 if task.device.type == "cuda" else 8)
    for group in passes({unit: sum(parameters[name].numel() for name in units[unit]) for unit in left}, most):
        names = [name for unit in group for name in units[unit]]
        task.memory("sums of a group", 4 * sum(parameters[name].numel() for name in names))
        task.memory("gradient of a tensor", max(parameters[name].numel() for name in names) * (4 + model.dtype.itemsize))
        fisher = Fisher(model, settings, task.seed)
        state = f"{group[0]}-{group[-1]}"

        def add(sums: Tensors, rows: Sequence[int], fisher: Fisher = fisher) -> None:
            for row in rows:
                fisher.add(task.examples[row], sums)

        def zeros(names: Sequence[str] = names) -> Tensors:
            return {name: torch.zeros_like(parameters[name], dtype=torch.float32) for name in names}

        with task.timing(state):
            total = sum_rows(task, state, len(task.examples), zeros, add, what=f"rows, {state}")
            if task.main:
                for unit in group:
                    task.parts.save(unit, {name: _mean(name, total.pop(name), len(task.examples)) for name in units[unit]})
                task.parts.drop(state)
        task.check_preempted()
    return Measured(list(units), {"tokens": sum(row.response_tokens for row in task.examples)})


def activations(model: Any, tokens: int) -> tuple[int, int]:
    """Bytes that a backward pass through one row keeps of a layer, about, and bytes of the hidden states between two layers."""
    config, size = model.config, model.dtype.itemsize
    between = tokens * config.hidden_size * size
    # Plain attention keeps its scores: before and after the soft cap or mask, and as probabilities.
    scores = 3 * config.num_attention_heads * tokens**2 * size if config._attn_implementation == "eager" else 0
    return KEPT * between + scores, between


def tensor_units(names: Iterable[str]) -> dict[str, list[str]]:
    """Parameters by unit of work: the embedding, each layer, and what comes after the layers, in the order of a forward pass."""
    units: dict[str, list[str]] = {}
    for name in names:
        layer = re.search(r"\.layers\.(\d+)\.", name)
        units.setdefault(f"layer.{int(layer[1]):03d}" if layer else "embedding" if "embed" in name else "head", []).append(name)
    return dict(sorted(units.items(), key=lambda item: (["embedding", "layer", "head"].index(item[0].partition(".")[0]), item[0])))


def passes(sizes: dict[str, int], room: int) -> Iterator[list[str]]:
    """Consecutive units whose sizes together are at most `room`, as many as fit; a larger unit is alone."""
    group: list[str] = []
    for unit, size in sizes.items():
        if group and sum(sizes[other] for other in group) + size > room:
            yield group
            group = []
        group.append(unit)
    if group:
        yield group


class Fisher:
    """Adds the Fisher information of rows, for the parameters that sums are given for.

    Args:
        model: A causal language model in evaluation mode; its parameters are never written.
        settings: What labels are, and how many.
        seed: With a row's id, it decides the drawn labels, whatever the order of the rows, and in every pass over them.
    """

    def __init__(self, model: Any, settings: FisherSettings, seed: int = 0) -> None:
        self.model = model
        self.settings = settings
        self.seed = seed

    def add(self, example: Example, sums: Tensors) -> None:
        """Add a row's Fisher information to `sums`: parameter name -> float32 of its shape, on its device."""
        parameters = dict(self.model.named_parameters())

        def square(name: str) -> Callable[[torch.Tensor], None]:
            def hook(parameter: torch.Tensor) -> None:
                assert parameter.grad is not None
                gradient = parameter.grad.float()
                parameter.grad = None
                sums[name].addcmul_(gradient, gradient)

            return hook

        with _asking({name: parameters[name] for name in sums}, square):
            states, labels = response_states(self.model, [example], 0)
            if self.settings.labels == "topk":
                for state in states.split(1):
                    log_p = logits(self.model, state)[0].log_softmax(-1)
                    likely = log_p.detach().topk(min(self.settings.k, len(log_p)))
                    for half, label in zip(likely.values / 2, likely.indices, strict=True):
                        (half.exp() * log_p[label]).backward(retain_graph=True)  # the root of p, for it is squared
            elif len(labels):
                if self.settings.labels == "sampled":
                    labels = draw(self.model, states.detach(), self.seed, example.id)
                negative_log_likelihood(self.model, states, labels).backward()


@torch.no_grad()
def draw(model: Any, states: torch.Tensor, seed: int, identity: str) -> torch.Tensor:
    """A label for each position from the model's distribution, decided by the seed and the row's id.

    Args:
        states: As `response_states` gives them, (tokens, width).

    Returns:
        int64 (tokens,).
    """
    digest = hashlib.sha256(f"{seed}\0{identity}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    uniform = torch.rand(len(states), 1, dtype=torch.float64, generator=generator).to(states.device)
    parts = zip(states.split(POSITIONS), uniform.split(POSITIONS), strict=True)
    return torch.cat([choose(logits(model, part).log_softmax(-1), numbers) for part, numbers in parts])


def choose(log_p: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The label of each row whose share of [0, 1) holds the row's number: int64 (n,) from (n, labels) and float64 (n, 1)."""
    below = log_p.double().exp().cumsum(-1)
    # The last sum, and not one, is the whole: rounding never leads beyond the labels.
    return torch.searchsorted(below, uniform * below[:, -1:], right=True).flatten().clamp_max(log_p.shape[-1] - 1)


@contextmanager
def _asking(parameters: dict[str, torch.Tensor], square: Callable[[str], Callable[[torch.Tensor], None]]) -> Iterator[None]:
    """Let these parameters, and no others, ask for gradients, which go to `square` one by one."""
    hooks = []
    try:
        for name, parameter in parameters.items():
            parameter.requires_grad_(True)
            hooks.append(parameter.register_post_accumulate_grad_hook(square(name)))
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in parameters.values():
            parameter.requires_grad_(False)


def _mean(name: str, total: torch.Tensor, rows: int) -> torch.Tensor:
    total.div_(rows)
    if not bool(torch.isfinite(total).all()):
        raise MergebenchError(f"fisher: {name} has information that is not finite; set statistics.fisher.dtype to float32.")
    return total
