"""The order in which the released MergeBench code takes the tasks: its results depend on it."""

from __future__ import annotations

from collections.abc import Sequence

RELEASED_ORDER = ("instruction", "math", "coding", "safety", "multilingual")


def released_order(domains: Sequence[str]) -> list[int]:
    """Positions of the domains in that order; those that it does not have follow as they are."""
    known = [domains.index(domain) for domain in RELEASED_ORDER if domain in domains]
    return known + [row for row in range(len(domains)) if row not in known]
