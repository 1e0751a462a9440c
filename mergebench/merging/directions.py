"""One direction of a plan: a method with all that its function needs besides a block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mergebench.merging.block import Block, Shared
from mergebench.merging.context import Matrices, Tensors
from mergebench.merging.cuts import Request
from mergebench.merging.lazy import torch
from mergebench.merging.models import Models
from mergebench.merging.registry import Method, get
from mergebench.merging.report import Facts
from mergebench.vectors.pieces import base_loader, vector_loader
from mergebench.vectors.walk import BLOCK

if TYPE_CHECKING:
    from torch import Tensor

Arithmetic = Literal["float32", "bfloat16"]


@dataclass
class Direction:
    """A method, its parameters, and what its own walks beforehand have found.

    Attributes:
        method: The method.
        values: The direction's parameters, validated.
        seed: Seed of methods that draw random numbers.
        device: Where torch definitions are computed; kernels run on the CPU alone.
        arithmetic: "float32", or "bfloat16" for the torch definitions' tensors (what released code computes in).
        totals, tensor_totals: See `registry.Method.total` and `tensor_total`.
        requests: The thresholds that the method asks for.
    """

    method: Method
    values: dict[str, Any]
    seed: int = 0
    device: str = "cpu"
    arithmetic: Arithmetic = "float32"
    totals: tuple[Any, ...] = ()
    tensor_totals: dict[str, Any] = field(default_factory=dict)
    requests: tuple[Request, ...] = ()

    @classmethod
    def of(cls, method: str, parameters: Mapping[str, Any] | None = None, **options: Any) -> tuple[Direction, float]:
        """The direction of a recipe, and its scale."""
        values, scale = get(method).split(parameters)
        return cls(get(method), values, **options), scale

    @property
    def fused(self) -> bool:
        """Whether the method's kernels are used."""
        return self.method.kernel is not None and self.device == "cpu" and self.arithmetic == "float32"

    @property
    def whole(self) -> bool:
        """Whether the method must see whole parameters."""
        return self.method.scope != "element"

    def block(self, shared: Shared, out: np.ndarray, facts: Facts) -> None:
        """The direction of one block, into out (float32 (m,)); what the method observes is added to `facts`."""
        if self.fused:
            assert self.method.kernel is not None
            block = self._block(shared)
            self.method.kernel(block, out, **self.values)
            if block.kept is not None:
                facts.add(Facts(kept=block.kept.tolist(), cancelled=block.cancelled))
            return
        found = self.method.direction(self._tensors(shared, facts), **self.values)
        out[:] = found.reshape(-1).float().cpu().numpy()

    def total(self, shared: Shared) -> Any:
        """The block's part of the sum that the method wants next over all parameters, float64; None if it wants none."""
        return self._sum(shared, self.method.total_kernel if self.fused else None, self.method.total)

    def tensor_total(self, shared: Shared) -> Any:
        """The block's part of the sum that the method wants over each tensor, float64; None if it wants none."""
        return self._sum(shared, self.method.tensor_total_kernel if self.fused else None, self.method.tensor_total)

    def sums(self, shared: Shared) -> tuple[Any, Any]:
        """`total` and, before that is known, `tensor_total`."""
        return self.total(shared), None if self.tensor_totals else self.tensor_total(shared)

    def matrices(self, models: Models, name: str, facts: Facts) -> Matrices:
        """What a method of scope "matrix" or "layer" sees of one parameter."""
        return Matrices(
            name,
            models.shape(name),
            models.domains,
            lambda row: whole_tensor(models, name, row).to(self.device),
            device=self.device,
            seed=self.seed,
            totals=self.totals,
            tensor_total=self.tensor_totals.get(name),
            find=models.statistic,
            observe=_observer(facts),
        )

    def _block(self, shared: Shared) -> Block:
        return Block(shared, self.seed, self.totals, self.tensor_totals.get(shared.name))

    def _tensors(self, shared: Shared, facts: Facts) -> Tensors:
        dtype = getattr(torch, self.arithmetic)
        stop = shared.offset + shared.base.size

        def find(kind: str, domain: str, name: str) -> Any:
            piece = shared.find(kind, domain, name, shared.offset, stop)
            return None if piece is None else torch.from_numpy(piece.copy()).to(self.device)

        return Tensors(
            name=shared.name,
            base=torch.from_numpy(shared.base).to(self.device, dtype),
            vectors=torch.from_numpy(shared.vectors).to(self.device, dtype),
            domains=shared.domains,
            offset=shared.offset,
            seed=self.seed,
            totals=self.totals,
            tensor_total=self.tensor_totals.get(shared.name),
            limits=lambda request: shared.cuts.limits(request, shared.name, shared.offset),
            find=find,
            observe=_observer(facts),
        )

    def _sum(self, shared: Shared, kernel: Callable[..., Any] | None, definition: Callable[..., Any] | None) -> Any:
        if kernel is not None:
            found = kernel(self._block(shared), **self.values)
        elif definition is not None:
            found = definition(self._tensors(shared, Facts()), **self.values)
        else:
            return None
        if found is None:
            return None
        return np.asarray(found.double().cpu().numpy() if hasattr(found, "cpu") else found, np.float64)


def whole_tensor(models: Models, name: str, row: int | None) -> Tensor:
    """The base's values of a parameter (row None), or a task vector: float32."""
    size = models.size(name)
    values, base = np.empty(size, np.float32), np.empty(min(BLOCK, size), np.float32)
    load = base_loader(models.base, name, 0, size)
    subtract = None if row is None else vector_loader(models.specialist(row), name, 0, size)
    for start in range(0, size, BLOCK):
        part = values[start : start + BLOCK]
        load(start, part if subtract is None else base[: part.size])
        if subtract is not None:
            subtract(start, base[: part.size], part)
    return torch.from_numpy(values).reshape(models.shape(name))


def _observer(facts: Facts) -> Any:
    def observe(masks: Tensor, *, cancelled: int = 0) -> None:
        facts.add(Facts(kept=[int(mask.sum()) for mask in masks], cancelled=int(cancelled)))

    return observe
