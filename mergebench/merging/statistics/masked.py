"""A model whose parameters are base + sigmoid(S) * (specialist - base), and gradient steps on the logits S.

In memory are one copy of the model, in the dtype in which it is loaded, and the logits, in theirs. Base and task vector are read from the
mapped files of the two checkpoints, a piece at a time, and never written. In the backward pass each parameter's gradient is used and
freed as soon as it is complete: it becomes the gradient by the parameter's logits, these are moved, and the parameter gets its new value,
so that the gradients of the whole model never exist together. A step whose rows are worked at one piece after the other
keeps the sum of their gradients, in float32 at least, until the last one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.merging.statistics.objective import response_loss
from mergebench.training import distributed
from mergebench.training.examples import IGNORED, Example

Tensors = dict[str, torch.Tensor]

PIECE = 1 << 22  # entries of a parameter that are worked at together


@dataclass(frozen=True)
class TaskVector:
    """specialist - base, read from the files.

    Attributes:
        base, specialist: The checkpoints. Embedding rows of the specialist beyond the base's are left out.
        names: Tensors that it has, sorted.
    """

    base: Checkpoint
    specialist: Checkpoint
    names: Sequence[str]

    @property
    def entries(self) -> int:
        return sum(self.base.size(name) for name in self.names)

    def pieces(self, name: str, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """(place in the flattened tensor, the base's values, the task vector's), of `dtype` on `device`; both are the caller's own."""
        base, specialist = self.base.tensor(name).reshape(-1), self.specialist.tensor(name).reshape(-1)
        for start in range(0, base.numel(), PIECE):
            place = slice(start, min(start + PIECE, base.numel()))
            values = base[place].to(device).to(dtype, copy=True)  # in this order: they travel in the dtype of the file
            yield place, values, specialist[place].to(device).to(dtype).sub(values)


class MaskedModel:
    """The model and its logits.

    Args:
        model: A causal language model with the base's parameters; they are overwritten.
        vector: The task vector of those parameters that have logits; the others keep the base's values.
        logits: Parameter name -> S, of the parameter's shape, on any device; moved in place by `step`.
        pad_token_id: Pads rows of different lengths.
        seed: With a step's number and a tensor's name it decides how logits narrower than float32 are rounded.
    """

    def __init__(self, model: Any, vector: TaskVector, logits: Tensors, pad_token_id: int, seed: int = 0) -> None:
        self.model, self.vector, self.logits = model.eval().requires_grad_(False), vector, logits
        self._pad, self._seed = pad_token_id, seed
        self._parameters = {name: parameter for name, parameter in model.named_parameters() if name in logits}
        if missing := sorted(logits.keys() - self._parameters.keys()):
            raise MergebenchError(f"The model has no parameter {missing[0]!r}, for which {vector.specialist.folder} has a task vector.")
        for name, parameter in self._parameters.items():
            parameter.requires_grad_()
            parameter.register_post_accumulate_grad_hook(lambda parameter, name=name: self._take(name, parameter))
        self.steps = 0
        self._largest: float | torch.Tensor = 0.0
        self._update: _Update | None = None
        self._sums: Tensors = {}
        self._turn = _Turn(1, first=True, last=True)

    def refresh(self) -> None:
        """Set every parameter that has logits from them."""
        for name, parameter in self._parameters.items():
            for place, values, tau in self.vector.pieces(name, parameter.device, _wide(parameter.dtype)):
                self._set(name, place, self._read(name, place), values, tau)

    def slopes(self, rows: Sequence[Example], pieces: int, l1: float) -> tuple[float, float]:
        """The loss on `rows` and the largest magnitude of the objective's gradient by a logit; nothing is moved."""
        loss = self._pass(rows, pieces, _Update(l1, None))
        return loss, float(self._largest)

    def step(self, rows: Sequence[Example], pieces: int, l1: float, rate: float) -> float:
        """Move the logits by -`rate` times the gradient of

            mean over the response tokens of `rows` of their negative log-likelihood + l1 * sum of sigmoid(S)

        and the parameters with them.

        Args:
            rows: The rows, the same in every process.
            pieces: Into so many pieces they are cut; each is one forward and backward pass. Processes work at different pieces, and add
                the gradients of all in the order of the pieces, so that their number changes no bit of the result.

        Returns:
            The loss, without the penalty, before the step.

        Raises:
            MergebenchError: It is not finite; then nothing was moved.
        """
        loss = self._pass(rows, pieces, _Update(l1, rate))
        self.steps += 1
        return loss

    def _pass(self, rows: Sequence[Example], pieces: int, update: _Update) -> float:
        """Forward and backward passes over all pieces; `update` is applied to each parameter when its gradient is complete."""
        self._largest, self._update = 0.0, update
        tokens = sum(_predicted(row) for row in rows)
        cut = [rows[len(rows) * i // pieces : len(rows) * (i + 1) // pieces] for i in range(pieces)]
        world, rank = distributed.world_size(), distributed.rank()
        losses: list[float] = []
        for start in range(0, pieces, world):
            shared = min(world, pieces - start)
            self._turn = _Turn(shared, first=start == 0, last=start + shared == pieces)
            # A process for which nothing is left repeats a piece, whose gradients nobody adds: all meet at every parameter.
            loss = response_loss(self.model, cut[start + min(rank, shared - 1)], self._pad) / tokens
            losses += [float(each) for each in _of_all(loss.detach().double().reshape(1))[:shared]]
            if not math.isfinite(sum(losses)):
                raise MergebenchError(f"mask: the masked model's loss became {sum(losses)} at step {self.steps}; lower learning_rate.")
            loss.backward()
        return sum(losses)

    def _take(self, name: str, parameter: torch.Tensor) -> None:
        """Use a parameter's gradient, which is complete for this piece, and free it."""
        assert parameter.grad is not None
        assert self._update is not None
        gradient, parameter.grad = parameter.grad.reshape(-1), None
        wide, turn = _wide(parameter.dtype), self._turn
        if not turn.last:
            if turn.first:
                self._sums[name] = torch.empty(gradient.numel(), dtype=wide, device=parameter.device)
            for start in range(0, gradient.numel(), PIECE):
                place = slice(start, start + PIECE)
                self._sums[name][place] = self._summed(name, place, gradient, wide)
            return
        for place, values, tau in self.vector.pieces(name, parameter.device, wide):
            slope = self._summed(name, place, gradient, wide).mul_(tau).add_(self._update.l1)
            logits = self._read(name, place)
            share = logits.sigmoid()
            slope.mul_(share.mul_(1 - share))
            if self._update.rate is None:
                self._largest = torch.maximum(torch.as_tensor(self._largest, device=slope.device), slope.abs().max().double())
            else:
                kept = self._write(name, place, logits - slope.mul_(self._update.rate))
                self._set(name, place, kept, values, tau)
        self._sums.pop(name, None)

    def _summed(self, name: str, place: slice, gradient: torch.Tensor, wide: torch.dtype) -> torch.Tensor:
        """Part of the gradient over the pieces so far, those of all processes included: the caller's own."""
        total = None if self._turn.first else self._sums[name][place]
        for part in _of_all(gradient[place])[: self._turn.shared]:
            total = part.to(wide, copy=True) if total is None else total.add_(part)
        assert total is not None
        return total

    def _read(self, name: str, place: slice) -> torch.Tensor:
        """Part of the logits where and as wide as the parameter's arithmetic is; not the caller's own."""
        parameter = self._parameters[name]
        return self.logits[name].view(-1)[place].to(parameter.device).to(_wide(parameter.dtype))

    def _write(self, name: str, place: slice, moved: torch.Tensor) -> torch.Tensor:
        """Keep part of the logits in their dtype; returns them as kept."""
        logits = self.logits[name].view(-1)[place]
        kept = moved
        if logits.dtype == torch.bfloat16:
            kept = rounded_at_random(moved, f"{self._seed}\0{self.steps}\0{name}\0{place.start}")
        logits.copy_(kept)
        return kept.to(moved.dtype)

    def _set(self, name: str, place: slice, logits: torch.Tensor, values: torch.Tensor, tau: torch.Tensor) -> None:
        """Give part of a parameter its value; `tau` is overwritten."""
        parameter = self._parameters[name].data
        parameter.view(-1)[place] = tau.mul_(logits.sigmoid()).add_(values).to(parameter.dtype)


@dataclass(frozen=True)
class _Update:
    """What happens with a complete gradient: a step of this rate, or, without one, a look at the largest slope."""

    l1: float
    rate: float | None


@dataclass(frozen=True)
class _Turn:
    """The pieces that the processes work at now: how many are new, and whether they are the first and the last of a step."""

    shared: int
    first: bool
    last: bool


def rounded_at_random(values: torch.Tensor, key: str) -> torch.Tensor:
    """Values as bfloat16, rounded up or down by chance so that the expectation is the value.

    A logit near 5 has neighbours 0.03 away: rounded to the nearest, it would never take a step of less than half of that.

    Args:
        values: Finite, float32.
        key: Decides the draw.
    """
    generator = torch.Generator(values.device)
    generator.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1)
    noise = torch.randint(1 << 16, values.shape, dtype=torch.int32, device=values.device, generator=generator)
    bits = values.float().contiguous().view(torch.int32)
    return ((bits + noise) & -(1 << 16)).view(torch.float32).bfloat16()


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _predicted(row: Example) -> int:
    """Response tokens that the model predicts: not one that is the first of the row."""
    return sum(label != IGNORED for label in row.labels[1:])


def _of_all(part: torch.Tensor) -> list[torch.Tensor]:
    """The tensors of all processes, in their order; all must ask."""
    if distributed.world_size() == 1:
        return [part]
    sent = part.contiguous().view(torch.uint8)  # not every backend knows every dtype
    received = [torch.empty_like(sent) for _ in range(distributed.world_size())]
    dist.all_gather(received, sent)
    return [each.view(part.dtype) for each in received]
