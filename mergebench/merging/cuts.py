"""Magnitude thresholds as the engine uses them: comparisons of bits, with an allowance of ties for each block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from mergebench.errors import MergebenchError
from mergebench.merging.perdomain import per_domain
from mergebench.vectors.spectrum import NOTHING, Cut, Ties

__all__ = ["Among", "Count", "Cuts", "Request", "Ties", "densities"]

Among = Literal["global", "tensor"]
Count = Literal["nearest", "floor", "floor_or_one", "above"]


class Request(NamedTuple):
    """Thresholds that a method asks for, one for every task vector.

    Attributes:
        densities: The fraction to keep of each task vector.
        ties: Of entries equal to the threshold keep "all", none ("strict"), or as many as were asked for ("exact"), the first in the
            order of sorted tensor names and flat positions.
        among: Count over all parameters in scope ("global") or in each tensor ("tensor").
        rounding: How many entries a density asks for of N: round(density * N) ("nearest"), the integer part ("floor"), that but one
            where it would be none ("floor_or_one"), or one more ("above").
    """

    densities: tuple[float, ...]
    ties: Ties = "all"
    among: Among = "global"
    rounding: Count = "nearest"

    def wanted(self, row: int, total: int) -> int:
        """How many of `total` entries are asked for of one task vector."""
        share = self.densities[row] * total
        asked = {
            "nearest": round(share),
            "floor": int(share),
            "floor_or_one": max(int(share), int(share > 0)),
            "above": int(share) + 1,
        }[self.rounding]
        return min(total, asked)


def densities(density: float | Mapping[str, float], domains: Sequence[str]) -> tuple[float, ...]:
    """A density for every domain."""
    return tuple(per_domain(density, domains, "density"))


@dataclass
class Cuts:
    """The thresholds of a walk.

    Attributes:
        domains: The order of the rows.
        block: Entries per block of `before`.
        found: request -> tensor name (None for "global") -> one cut per domain.
        before: (request, row) -> tensor name -> for each block, how many entries that equal the threshold lie before it among those that
            are counted, int64; only where a cut has spare entries.
    """

    domains: tuple[str, ...]
    block: int
    found: dict[Request, dict[str | None, tuple[Cut, ...]]] = field(default_factory=dict)
    before: dict[tuple[Request, int], dict[str, np.ndarray]] = field(default_factory=dict)

    def cuts(self, request: Request, name: str) -> tuple[Cut, ...]:
        """The cuts of one tensor, in the order of the domains."""
        if request not in self.found:
            raise MergebenchError(
                f"No threshold was prepared for densities {request.densities}; a method must ask for the same ones in every block."
            )
        return self.found[request][None if request.among == "global" else name]

    def limits(self, request: Request, name: str, offset: int) -> tuple[np.ndarray, np.ndarray]:
        """What a block compares with.

        Args:
            request: Which thresholds.
            name: The tensor.
            offset: The block's first entry; a multiple of `block`.

        Returns:
            limits (uint32 (n,)): entries whose magnitude has at least these bits are kept.
            spares (int64 (n,)): so many entries of the bits limit - 1 are kept as well, the block's first ones.
        """
        cuts = self.cuts(request, name)
        limits = np.array([cut.limit for cut in cuts], np.uint32)
        spares = np.zeros(len(cuts), np.int64)
        for row, cut in enumerate(cuts):
            if cut.spare:
                before = self.before[request, row][name]
                place = offset // self.block
                spares[row] = max(cut.spare - int(before[place]), 0) if place < before.size else 0
        return limits, spares

    def identity(self, request: Request) -> tuple[tuple[str, tuple[tuple[int, int], ...]], ...]:
        """What a request comes to: equal for two that keep the very same entries."""
        return tuple(sorted((name or "", tuple((cut.limit, cut.spare) for cut in cuts)) for name, cuts in self.found[request].items()))

    def record(self, requests: Iterable[Request]) -> list[dict[str, object]]:
        """The thresholds over all parameters in scope that answer some requests, for a manifest."""
        return [
            {
                "domain": domain,
                "density": density,
                "ties": request.ties,
                "count": request.rounding,
                "threshold": None if cut.limit >= NOTHING else cut.value,
                "kept": cut.kept,
                "total": cut.total,
            }
            for request in requests
            if request.among == "global"
            for domain, density, cut in zip(self.domains, request.densities, self.found[request][None], strict=True)
        ]
