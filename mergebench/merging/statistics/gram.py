"""Gram matrices of the inputs of every linear layer, for RegMean (Jin et al., 2023).

For a layer ``y = x W^T`` the statistic is ``X^T X / N``, where the N rows of X are the layer's inputs at all real
(not padded) tokens of the calibration rows. One forward pass serves every reduction factor.
"""

from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch

from mergebench.training.examples import Example, collate

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Gram:
    """Sums X^T X by forward hooks while the block is open; a context manager.

    Layers that are given the same tensor are found in the first batch and share one matrix. Products are computed
    in the inputs' precision (at least float32) and added in `accumulate`.

    Args:
        model: a causal language model; put into evaluation mode, its parameters are never written. A head tied to
            the embedding is left out: its weight is not a linear layer of its own.
        pad_token_id: id with which rows of a batch are padded.
        accumulate: ``float64`` or ``float32``.

    Attributes:
        tokens: number of tokens added.
        aliases: parameter name -> parameter name under which the shared matrix is kept.
    """

    def __init__(self, model: Any, pad_token_id: int, accumulate: str = "float64") -> None:
        self.model = model.eval()
        self.pad_token_id = pad_token_id
        self.tokens = 0
        self.aliases: dict[str, str] = {}
        self._dtype = DTYPES[accumulate]
        self._sums: dict[str, torch.Tensor] = {}
        self._inputs: dict[int, tuple[torch.Tensor, str]] = {}  # of the batch in progress, by identity
        self._mask = torch.empty(0)
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        own = {name for name, _ in self.model.named_parameters()}
        for module_name, module in self.model.named_modules():
            name = f"{module_name}.weight"
            if isinstance(module, torch.nn.Linear) and name in own:
                self._hooks.append(module.register_forward_pre_hook(self._hook(name)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    @torch.no_grad()
    def add(self, examples: Sequence[Example], batch_size: int = 8, progress: Callable[[int], None] = lambda done: None) -> None:
        """Add the inputs of all layers at all tokens of `examples`."""
        device = next(self.model.parameters()).device
        for start in range(0, len(examples), batch_size):
            batch = collate(examples[start : start + batch_size], self.pad_token_id)
            ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
            self.observe(mask, partial(self.model, input_ids=ids, attention_mask=mask, use_cache=False))
            progress(min(start + batch_size, len(examples)))

    def observe(self, attention_mask: torch.Tensor, forward: Callable[[], Any]) -> None:
        """Add the inputs of all layers that `forward` runs, at the tokens of a batch that its mask (rows, longest) says are real."""
        self._mask = attention_mask.bool().to(next(self.model.parameters()).device)
        self._inputs.clear()
        forward()
        self._inputs.clear()
        self.tokens += int(self._mask.sum())

    def result(self) -> dict[str, torch.Tensor]:
        """Parameter name -> X^T X / N, float32, of shape (in_features, in_features); aliases are left out."""
        return {name: (total / max(self.tokens, 1)).float().cpu() for name, total in self._sums.items()}

    def _hook(self, name: str) -> Callable[[Any, tuple[Any, ...]], None]:
        def before_forward(module: Any, arguments: tuple[Any, ...]) -> None:
            inputs = arguments[0]
            # Holding the tensor keeps its id from being used again within the batch.
            _, first = self._inputs.setdefault(id(inputs), (inputs, name))
            known = self.aliases.get(name, name if name in self._sums else None)
            if known is None:
                if first != name:
                    self.aliases[name] = first
                    return
            elif known != name and known == first:
                return
            elif known != first:
                raise RuntimeError(f"{name} shared the input of {known} in an earlier batch but not in this one")
            rows = inputs[self._mask]
            rows = rows.float() if rows.dtype in (torch.bfloat16, torch.float16) else rows
            product = (rows.T @ rows).to(self._dtype)
            self._sums[name] = product if name not in self._sums else self._sums[name].add_(product)

        return before_forward
