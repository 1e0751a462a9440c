"""Parameters that hold one number for all specialists, or one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mergebench.errors import MergebenchError


def per_domain(value: float | Mapping[str, float], domains: Sequence[str], owner: str) -> list[float]:
    """The number of every domain, in their order.

    Args:
        value: A number for all, or a map with one for each domain.
        domains: The domains being merged.
        owner: The parameter, such as "ties.density", for messages.

    Raises:
        MergebenchError: A domain has no number.
    """
    if not isinstance(value, Mapping):
        return [float(value)] * len(domains)
    for domain in domains:
        if domain not in value:
            raise MergebenchError(f"{owner} has no value for {domain}; it has {', '.join(value)}.")
    return [float(value[domain]) for domain in domains]
