"""Calibration samples on their way through a model that is being merged, for RegMean++ (Nguyen et al., 2025)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from mergebench.errors import MergebenchError
from mergebench.merging.statistics.gram import Gram
from mergebench.training.examples import Example, collate


class LayerInputs:
    """The hidden states of every domain's samples before the next stage: the embedding, each layer, and norm and head.

    One forward pass per stage and domain measures, another passes on: the whole model costs two passes for each specialist, whatever
    its depth. Memory holds one hidden state per token.

    Args:
        model: A decoder in the layout of Llama and Gemma 2 (`model.embed_tokens`, `model.layers`, `model.norm`, a head). It is used as a
            vessel: its parameters are overwritten.
        samples: Domain -> its calibration rows.
        pad_token_id: Id with which rows of a batch are padded.
        batch_size: Rows per forward pass.

    Raises:
        MergebenchError: The model has another layout, or a domain has no samples.
    """

    def __init__(self, model: Any, samples: Mapping[str, Sequence[Example]], pad_token_id: int, batch_size: int = 8) -> None:
        self.model = model.eval()
        self.decoder: Any = getattr(model, "model", None)
        if not all(hasattr(self.decoder, part) for part in ("embed_tokens", "layers", "norm")):
            raise MergebenchError(
                f"{type(model).__name__} does not keep embedding, layers and norm where Llama and Gemma 2 do; merge it with regmean."
            )
        for domain, rows in samples.items():
            if not rows:
                raise MergebenchError(f"{domain} has no calibration samples; give it at least one.")
        self.pad_token_id = pad_token_id
        self._parameters = dict(model.named_parameters())
        self._batches = {
            domain: [collate(rows[start : start + batch_size], pad_token_id) for start in range(0, len(rows), batch_size)]
            for domain, rows in samples.items()
        }
        self._hidden: dict[str, list[torch.Tensor]] = {}
        self._arguments: dict[str, list[list[dict[str, Any]]]] = {}  # of every layer, for every batch: masks and positions

    def stages(self, names: Sequence[str]) -> list[list[str]]:
        """These parameters, stage by stage: the embedding, each layer, norm and head."""
        found: list[list[str]] = [[] for _ in range(len(self.decoder.layers) + 2)]
        for name in names:
            if name.startswith("model.layers."):
                found[1 + int(name.split(".")[2])].append(name)
            else:
                found[0 if name.startswith("model.embed_tokens.") else -1].append(name)
        return found

    @torch.no_grad()
    def measure(self, stage: int, domain: str, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Gram matrices of the inputs of a stage's linear layers; layers with the same inputs have the same matrix."""
        if stage == 0:
            return {}
        self._load(weights)
        with Gram(self.model, self.pad_token_id) as gram:
            for number, batch in enumerate(self._batches[domain]):
                gram.observe(batch["attention_mask"], self._run(stage, domain, number))
        matrices = gram.result()
        return {name: matrices[gram.aliases.get(name, name)] for name in weights if gram.aliases.get(name, name) in matrices}

    @torch.no_grad()
    def advance(self, stage: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Give a stage its merged weights and pass all hidden states on."""
        self._load(weights)
        if stage == 0:
            for domain in self._batches:
                self._start(domain)
        elif stage <= len(self.decoder.layers):
            for domain, states in self._hidden.items():
                states[:] = [self._run(stage, domain, number)() for number in range(len(states))]

    def _load(self, weights: Mapping[str, torch.Tensor]) -> None:
        for name, value in weights.items():
            self._parameters[name].copy_(value)

    def _run(self, stage: int, domain: str, number: int) -> Callable[[], torch.Tensor]:
        """A pass of one batch through a stage."""
        hidden = self._hidden[domain][number]
        if stage > len(self.decoder.layers):
            return lambda: self.model.get_output_embeddings()(self.decoder.norm(hidden))
        layer, arguments = self.decoder.layers[stage - 1], self._arguments[domain][number][stage - 1]

        def run() -> torch.Tensor:
            out = layer(hidden, **arguments)
            return out[0] if isinstance(out, tuple) else out

        return run

    def _start(self, domain: str) -> None:
        """The hidden states before the first layer; and what the model gives its layers beside them, which no weight changes."""
        self._hidden[domain], self._arguments[domain] = [], []
        device = next(iter(self._parameters.values())).device
        for batch in self._batches[domain]:
            first: list[torch.Tensor] = []
            others: list[dict[str, Any]] = []

            def before(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], first: list = first, others: list = others) -> None:
                if not first:
                    first.append(args[0] if args else kwargs["hidden_states"])
                others.append({key: value for key, value in kwargs.items() if key != "hidden_states"})

            hooks = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in self.decoder.layers]
            self.decoder(input_ids=batch["input_ids"].to(device), attention_mask=batch["attention_mask"].to(device), use_cache=False)
            for hook in hooks:
                hook.remove()
            self._hidden[domain].append(first[0])
            self._arguments[domain].append(others)
