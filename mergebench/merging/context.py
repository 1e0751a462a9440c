"""What a merging method sees: one parameter of the base and of every specialist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from mergebench.errors import MergebenchError

Kind = Literal["fisher", "gram", "mask"]


def _no_threshold(domain: str, density: float, ties: str) -> tuple[float, bool]:
    raise MergebenchError(f"The spectrum of {domain} was not given; measure its task vector first.")


def _no_statistic(kind: str, domain: str, name: str) -> None:
    return None


def _ignore(masks: torch.Tensor) -> None:
    return None


@dataclass(frozen=True)
class Tensors:
    """One parameter, as every method sees it. Nothing in it may be modified.

    Attributes:
        name: The tensor's name.
        base: The base's values, float32.
        vectors: The task vectors of this tensor, float32 (n, *base.shape), in the order of `domains`.
        domains: The n domains, sorted by name, so that the order in which specialists are given changes nothing.
        seed: Seed of the merge, for methods that draw random numbers.
        total: What the method's own first walk added up over all parameters; None without one.
        threshold: (domain, density, ties) -> (value, strict): the global magnitude threshold of a task vector.
        find: (kind, domain, tensor name) -> a statistic, or None where it was not measured.
        observe: Told which entries of each task vector a method keeps, for the report.
    """

    name: str
    base: torch.Tensor
    vectors: torch.Tensor
    domains: tuple[str, ...]
    seed: int = 0
    total: torch.Tensor | None = None
    threshold: Callable[[str, float, str], tuple[float, bool]] = _no_threshold
    find: Callable[[Kind, str, str], torch.Tensor | None] = _no_statistic
    observe: Callable[[torch.Tensor], None] = _ignore

    def top(self, density: float, ties: str = "all") -> torch.Tensor:
        """Which entries are among the `density` largest magnitudes of their *whole* task vector: bool, as `vectors`."""
        masks = torch.zeros(self.vectors.shape, dtype=torch.bool)
        for row, domain in enumerate(self.domains):
            value, strict = self.threshold(domain, density, ties)
            magnitude = self.vectors[row].abs()
            masks[row] = magnitude > value if strict else magnitude >= value
        return masks

    def statistic(self, kind: Kind) -> torch.Tensor:
        """A statistic with the parameter's shape, of every domain: (n, *base.shape).

        Raises:
            MergebenchError: A domain lacks it for this parameter.
        """
        found = [self.find(kind, domain, self.name) for domain in self.domains]
        for domain, value in zip(self.domains, found, strict=True):
            if value is None or value.shape != self.base.shape:
                state = "absent" if value is None else f"of shape {list(value.shape)}"
                raise MergebenchError(
                    f"The {kind} statistic of {domain} for {self.name!r} is {state}, expected {list(self.base.shape)}; "
                    "measure the statistics again from these models."
                )
        return torch.stack([value for value in found if value is not None])
