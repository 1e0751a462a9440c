"""What a merge turned out to be: densities, norms and conflicts, added up while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class Report:
    """Counts over the parameters in scope.

    Attributes:
        domains: The domains, in the order of the task vectors.
        entries: Parameters seen.
        kept: Per domain, entries that the method kept; empty for a method that keeps all.
        conflicts: Entries at which two task vectors have opposite signs.
        moved: Entries at which the direction is not zero.
        squares: Sum of squares of the direction.
    """

    domains: tuple[str, ...]
    entries: int = 0
    kept: dict[str, int] = field(default_factory=dict)
    conflicts: int = 0
    moved: int = 0
    squares: float = 0.0

    def masks(self, masks: torch.Tensor) -> None:
        """Count what a method keeps of each task vector: bool (n, *shape)."""
        counts = [int(mask.sum()) for mask in masks]
        self.kept = {d: self.kept.get(d, 0) + count for d, count in zip(self.domains, counts, strict=True)}

    def add(self, vectors: torch.Tensor, direction: torch.Tensor) -> None:
        """Count one parameter: its task vectors (n, *shape) and the direction (*shape)."""
        self.entries += direction.numel()
        self.conflicts += int(((vectors > 0).any(0) & (vectors < 0).any(0)).sum())
        self.moved += int(torch.count_nonzero(direction))
        self.squares += float(direction.double().square().sum())

    def record(self) -> dict[str, object]:
        """The facts for a manifest: fractions of the parameters in scope, and the direction's norm."""
        entries = max(self.entries, 1)
        return {
            "parameters": self.entries,
            "densities": {domain: count / entries for domain, count in self.kept.items()},
            "direction_density": self.moved / entries,
            "direction_norm": self.squares**0.5,
            "sign_conflict_rate": self.conflicts / entries,
        }
