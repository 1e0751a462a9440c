"""What the torch definition of a method sees: a piece of one parameter (`Tensors`), or a whole parameter (`Matrices`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from mergebench.errors import MergebenchError
from mergebench.merging.block import Block
from mergebench.merging.cuts import Among, Count, Request, Ties, densities
from mergebench.merging.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["fisher", "gram", "mask"]
Find = Callable[[str, str, str], Any]
Limits = Callable[[Request], tuple[np.ndarray, np.ndarray]]

__all__ = ["Block", "Kind", "Matrices", "Tensors"]


class Observe(Protocol):
    """Told which entries of each task vector a method keeps (bool, as `vectors`), and at how many entries kept ones cancel to zero."""

    def __call__(self, masks: Tensor, *, cancelled: int = 0) -> None: ...


def _no_limits(request: Request) -> tuple[np.ndarray, np.ndarray]:
    raise MergebenchError("No thresholds were given; declare `spectra=True` for a method that asks for the largest entries.")


def _no_statistic(kind: str, domain: str, name: str) -> None:
    return None


def _ignore(masks: Tensor, *, cancelled: int = 0) -> None:
    return None


@dataclass(frozen=True)
class Tensors:
    """A piece of one parameter, as elementwise methods see it. Nothing in it may be modified.

    Pieces are flat; which ones there are is the engine's affair, and no result may depend on it. What depends on an entry's place
    (random numbers) uses `offset`.

    Attributes:
        name: The tensor's name.
        base: The base's values, float32 (m,).
        vectors: The task vectors, float32 (n, m), in the order of `domains`.
        domains: The n domains, sorted by name, so that the order in which specialists are given changes nothing.
        offset: Place of the piece's first entry in the flattened tensor.
        seed: Seed of the merge, for methods that draw random numbers.
        totals: What the method's own walks beforehand have added up over all parameters, in their order.
        tensor_total: What the method has added up over this tensor alone; None without such a sum.
        limits: `cuts.Request` -> (limits, spares), see `cuts.Cuts.limits`.
        find: (kind, domain, tensor name) -> this piece of a statistic, or None where it was not measured.
        observe: Told which entries of each task vector a method keeps, for the report.
    """

    name: str
    base: Tensor
    vectors: Tensor
    domains: tuple[str, ...]
    offset: int = 0
    seed: int = 0
    totals: tuple[Any, ...] = ()
    tensor_total: Any = None
    limits: Limits = _no_limits
    find: Find = _no_statistic
    observe: Observe = _ignore

    def top(self, density: float | Mapping[str, float], ties: Ties = "all", *, among: Among = "global", count: Count = "nearest") -> Tensor:
        """Which entries are among the `density` largest magnitudes of their whole task vector: bool, as `vectors`.

        Args:
            density: Fraction that is kept; one for all or one per domain.
            ties, among, count: See `cuts.Request` (`count` is its `rounding`).
        """
        limits, spares = self.limits(Request(densities(density, self.domains), ties, among, count))
        # The bits of non-negative float32 numbers order like the numbers; limits are compared as bits.
        bits = self.vectors.float().abs().view(torch.int32)
        cut = torch.from_numpy(limits.astype(np.int32)).to(bits.device)
        # The k-th largest of rounded numbers is the k-th largest, rounded.
        cut = cut.view(torch.float32).to(self.vectors.dtype).float().view(torch.int32).clamp_min(1)
        masks = bits >= cut[:, None]
        for row, spare in enumerate(spares.tolist()):
            if spare:
                equal = bits[row] == int(limits[row]) - 1
                masks[row] |= equal & (equal.cumsum(0) <= spare)
        return masks

    def statistic(self, kind: Kind) -> Tensor:
        """This piece of a statistic with the parameter's shape, of every domain: as `vectors`, in its stored dtype.

        Raises:
            MergebenchError: A domain lacks it for this parameter.
        """
        return torch.stack(list(_found(self, kind, tuple(self.base.shape))))


@dataclass(frozen=True)
class Matrices:
    """One whole parameter, as methods of scope "matrix" and "layer" see it.

    The base and the task vectors are read when they are asked for. A method that takes one `vector(row)` at a time holds one copy of
    the parameter; `vectors` makes n.

    Attributes:
        name: The tensor's name.
        shape: Its shape.
        domains: The n domains, sorted by name.
        read: None -> the base's values, row -> the task vector of domains[row]; float32, of `shape`.
        device: Where tensors are.
        seed, totals, tensor_total, find, observe: As in `Tensors`, for the whole parameter.
    """

    name: str
    shape: tuple[int, ...]
    domains: tuple[str, ...]
    read: Callable[[int | None], Tensor]
    device: str = "cpu"
    seed: int = 0
    totals: tuple[Any, ...] = ()
    tensor_total: Any = None
    find: Find = _no_statistic
    observe: Observe = _ignore
    offset: int = field(default=0, init=False)

    @property
    def base(self) -> Tensor:
        """The base's values, float32 (*shape); read anew each time."""
        return self.read(None)

    @property
    def vectors(self) -> Tensor:
        """All task vectors, float32 (n, *shape); read anew each time."""
        found = torch.empty((len(self.domains), *self.shape), dtype=torch.float32, device=self.device)
        for row in range(len(self.domains)):
            found[row] = self.read(row)
        return found

    def vector(self, row: int) -> Tensor:
        """The task vector of domains[row], float32 (*shape); the caller may modify it."""
        return self.read(row)

    def average(self) -> Tensor:
        """The mean of the task vectors, added up in the order of the domains; two copies of the parameter at most."""
        total = self.read(0)
        for row in range(1, len(self.domains)):
            total += self.read(row)
        return total.div_(len(self.domains)) if math.prod(self.shape) else total

    def statistic(self, kind: Kind) -> Tensor:
        """A statistic with the parameter's shape, of every domain: (n, *shape), in its stored dtype.

        Raises:
            MergebenchError: A domain lacks it for this parameter.
        """
        return torch.stack(list(_found(self, kind, self.shape)))


def _found(context: Tensors | Matrices, kind: Kind, shape: tuple[int, ...]) -> list[Tensor]:
    found = [context.find(kind, domain, context.name) for domain in context.domains]
    for domain, value in zip(context.domains, found, strict=True):
        if value is None or tuple(value.shape) != shape:
            state = "absent" if value is None else f"of shape {list(value.shape)}"
            raise MergebenchError(
                f"The {kind} statistic of {domain} for {context.name!r} is {state}, expected {list(shape)}; "
                "measure the statistics again from these models."
            )
    return found
