"""What a method's kernel sees: one block of the base and of every task vector, in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mergebench.errors import MergebenchError
from mergebench.merging.cuts import Among, Count, Cuts, Request, Ties, densities

FindPiece = Callable[[str, str, str, int, int], "np.ndarray | None"]


class Shared:
    """What all directions that are computed from one block have in common.

    Attributes:
        name, offset, base, vectors, domains: As in `Block`.
        cuts: The thresholds of the walk.
        find: (kind, domain, tensor name, start, stop) -> a piece of a statistic, or None.
        made: What kernels have put aside for the other directions of the block, such as random numbers.
    """

    __slots__ = ("base", "cuts", "domains", "find", "made", "name", "offset", "vectors")

    def __init__(
        self, name: str, offset: int, base: np.ndarray, vectors: np.ndarray, domains: tuple[str, ...], cuts: Cuts, find: FindPiece
    ) -> None:
        self.name, self.offset, self.base, self.vectors = name, offset, base, vectors
        self.domains, self.cuts, self.find = domains, cuts, find
        self.made: dict[Any, Any] = {}


class Block:
    """A block as one direction's kernel sees it. Nothing in it may be modified.

    Attributes:
        name: The tensor's name.
        offset: Place of the block's first entry in the flattened tensor.
        base: The base's values, float32 (m,).
        vectors: The task vectors, float32 (n, m), in the order of `domains`.
        domains: The n domains, sorted by name.
        seed: Seed of the merge.
        totals: What the method's own walks beforehand have added up over all parameters, in their order.
        tensor_total: What the method has added up over this tensor alone; None without such a sum.
        kept: Entries kept of each task vector, if the kernel has said so: int64 (n,).
        cancelled: Entries at which kept ones cancel to zero.
    """

    __slots__ = ("_shared", "base", "cancelled", "domains", "kept", "name", "offset", "seed", "tensor_total", "totals", "vectors")

    def __init__(self, shared: Shared, seed: int = 0, totals: tuple[Any, ...] = (), tensor_total: Any = None) -> None:
        self._shared = shared
        self.name, self.offset, self.base, self.vectors = shared.name, shared.offset, shared.base, shared.vectors
        self.domains, self.seed, self.totals, self.tensor_total = shared.domains, seed, totals, tensor_total
        self.kept: np.ndarray | None = None
        self.cancelled = 0

    def limits(
        self, density: float | Mapping[str, float], ties: Ties = "all", *, among: Among = "global", count: Count = "nearest"
    ) -> tuple[np.ndarray, np.ndarray]:
        """The thresholds of every task vector.

        Args:
            density: Fraction that is kept; one for all or one per domain.
            ties, among, count: See `cuts.Request` (`count` is its `rounding`).

        Returns:
            limits (uint32 (n,)): entries whose magnitude has at least these float32 bits are kept.
            spares (int64 (n,)): so many entries of the bits limit - 1 are kept as well, the block's first ones.
        """
        return self._shared.cuts.limits(Request(densities(density, self.domains), ties, among, count), self.name, self.offset)

    def statistic(self, kind: str) -> np.ndarray:
        """This piece of a statistic with the parameter's shape, of every domain: (n, m), in its stored dtype.

        Raises:
            MergebenchError: A domain lacks it for this parameter.
        """
        stop = self.offset + self.base.size
        found = [self._shared.find(kind, domain, self.name, self.offset, stop) for domain in self.domains]
        for domain, piece in zip(self.domains, found, strict=True):
            if piece is None or piece.size != self.base.size:
                state = "absent" if piece is None else "of another shape"
                raise MergebenchError(
                    f"The {kind} statistic of {domain} for {self.name!r} is {state}; measure the statistics again from these models."
                )
        return np.stack([piece for piece in found if piece is not None])

    def measured(self, kind: str) -> bool:
        """Whether any domain has this statistic for this parameter."""
        return any(self._shared.find(kind, domain, self.name, self.offset, self.offset) is not None for domain in self.domains)

    def shared(self, key: Any, make: Callable[[], Any]) -> Any:
        """The value of `key`, made once per block and shared by all directions that are computed from it."""
        made = self._shared.made
        if key not in made:
            made[key] = make()
        return made[key]

    def observe(self, kept: np.ndarray, cancelled: int = 0) -> None:
        """Say how many entries of each task vector were kept, int64 (n,), and at how many the kept ones cancel to zero."""
        self.kept, self.cancelled = kept, int(cancelled)
