"""Diagonal Fisher information of a language model (Matena & Raffel, 2022).

For one example with prompt x and response positions t, labels y_t are drawn from the model's own distribution at
each position (``sampled``, the definition) or are those of the data (``empirical``). The gradient g of
``sum_t log p(y_t | x, y_<t)`` is taken for the example alone and squared; the statistic is the mean of g^2 over
examples. Because the square is taken per example, it cannot depend on how examples are batched.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch

from mergebench.training.examples import IGNORED, Example

Labels = Literal["sampled", "empirical"]


class Fisher:
    """Running mean of squared per-example gradients, float32, of every trainable parameter of a frozen model.

    Args:
        model: a causal language model; put into evaluation mode, its parameters are never written.
        labels: ``sampled`` or ``empirical``.
        seed: with an example's id, it decides the sampled labels, whatever the order of the examples.

    Attributes:
        examples: number of examples added.
    """

    def __init__(self, model: Any, labels: Labels = "sampled", seed: int = 0) -> None:
        self.model = model.eval()
        self.labels, self.seed = labels, seed
        self.examples = 0
        self._parameters = dict(model.named_parameters())
        self._sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in self._parameters.items()}

    def add(self, examples: Iterable[Example], progress: Callable[[int], None] = lambda done: None) -> None:
        """Add each example's squared gradient."""
        for example in examples:
            loss = self._negative_log_likelihood(example)
            gradients = torch.autograd.grad(loss, list(self._parameters.values()))
            for total, gradient in zip(self._sums.values(), gradients, strict=True):
                total.addcmul_(gradient.float(), gradient.float())
            self.examples += 1
            progress(self.examples)

    def result(self) -> dict[str, torch.Tensor]:
        """Parameter name -> mean squared gradient, float32, of the parameter's shape."""
        return {name: (total / max(self.examples, 1)).cpu() for name, total in self._sums.items()}

    def _negative_log_likelihood(self, example: Example) -> torch.Tensor:
        device = next(iter(self._parameters.values())).device
        ids = torch.tensor([example.input_ids], device=device)
        targets = torch.tensor(example.labels, device=device)[1:]
        positions = (targets != IGNORED).nonzero().flatten()
        logits = self.model(input_ids=ids, use_cache=False).logits[0, positions].float()
        labels = targets[positions] if self.labels == "empirical" else self._sample(logits, example.id)
        return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")

    def _sample(self, logits: torch.Tensor, identity: str) -> torch.Tensor:
        digest = hashlib.sha256(f"{self.seed}\0{identity}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        probabilities = logits.detach().softmax(-1).cpu()
        return torch.multinomial(probabilities, 1, generator=generator).flatten().to(logits.device)
