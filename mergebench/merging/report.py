"""What a merge turned out to be: densities, norms and conflicts, counted while it runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Facts:
    """Counts over one tensor, or a part of it.

    Attributes:
        entries: Parameters seen.
        conflicts: Entries at which two task vectors have opposite signs.
        moved: Entries at which the direction is not zero.
        squares: Sum of squares of the direction.
        cancelled: Entries at which what the method kept cancels to zero.
        kept: Entries that the method kept of each task vector; None for a method that keeps all.
    """

    entries: int = 0
    conflicts: int = 0
    moved: int = 0
    squares: float = 0.0
    cancelled: int = 0
    kept: list[int] | None = None

    def add(self, other: Facts) -> None:
        """Add the counts of another part."""
        self.entries += other.entries
        self.conflicts += other.conflicts
        self.moved += other.moved
        self.squares += other.squares
        self.cancelled += other.cancelled
        if other.kept is not None:
            self.kept = [a + b for a, b in zip(self.kept or [0] * len(other.kept), other.kept, strict=True)]

    def record(self) -> dict[str, Any]:
        """The counts as a JSON-able map."""
        return asdict(self)


@dataclass
class Report:
    """The facts of one direction, by tensor.

    Attributes:
        domains: The domains, in the order of the task vectors.
        tensors: Tensor name -> its facts.
        thresholds: The magnitude thresholds that were used, see `cuts.Cuts.record`.
    """

    domains: tuple[str, ...]
    tensors: dict[str, Facts] = field(default_factory=dict)
    thresholds: list[dict[str, object]] = field(default_factory=list)

    def add(self, name: str, facts: Facts) -> None:
        """Add the facts of a part of a tensor. Parts of one tensor come in its order."""
        self.tensors.setdefault(name, Facts()).add(facts)

    def record(self) -> dict[str, Any]:
        """The facts for a manifest: fractions of the parameters in scope, and the direction's norm."""
        return {
            **self._fractions(self.tensors[name] for name in sorted(self.tensors)),
            "thresholds": self.thresholds,
            "tensors": {name: self._fractions([self.tensors[name]]) for name in sorted(self.tensors)},
        }

    def _fractions(self, parts: Iterable[Facts]) -> dict[str, Any]:
        whole = Facts()
        for part in parts:
            whole.add(part)
        entries = max(whole.entries, 1)
        return {
            "parameters": whole.entries,
            "densities": {} if whole.kept is None else {d: count / entries for d, count in zip(self.domains, whole.kept, strict=True)},
            "direction_density": whole.moved / entries,
            "direction_norm": whole.squares**0.5,
            "sign_conflict_rate": whole.conflicts / entries,
            "tie_rate": whole.cancelled / entries,
        }
