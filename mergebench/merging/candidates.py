"""The candidates of a method's grid: what tuning has to score, in which order, and on which domains.

A grid is a map from parameters to values. Its candidates are the product of the values, the scale varying fastest, so that
neighbours share a direction. A parameter with one value per domain (the thresholds of Consensus TA) is tuned first: one
candidate per domain and value, scored on that domain alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mergebench.errors import MergebenchError
from mergebench.merging.registry import SCALE, Method, get

Stage = Literal["domain", "grid"]


@dataclass(frozen=True)
class Candidate:
    """One point of a search: base + scale * direction(method, parameters).

    Attributes:
        method: The method's name.
        stage: "domain" (a value tuned for one domain, before all others) or "grid".
        parameters: The direction's parameters, fixed ones included; without the scale.
        scale: The scaling coefficient; 1 for methods without one.
        domains: The domains on whose surrogates it is scored.
    """

    method: str
    stage: Stage
    parameters: dict[str, Any] = field(hash=False)
    scale: float
    domains: tuple[str, ...]

    @property
    def recipe(self) -> dict[str, Any]:
        """The parameters as a recipe or `best.yaml` holds them, the scale among them."""
        return self.parameters | ({SCALE: self.scale} if get(self.method).scaled else {})

    def given(self, chosen: Mapping[str, Any]) -> Candidate:
        """This candidate with parameters that an earlier stage has chosen."""
        return replace(self, parameters={**self.parameters, **chosen})


def candidates(
    method: str, grid: Mapping[str, Sequence[float]], domains: Sequence[str], fixed: Mapping[str, Any] | None = None
) -> list[Candidate]:
    """Every candidate of a grid, in the order of the search: stage "domain" first, then "grid".

    Args:
        method: The method's name.
        grid: Parameter -> values; empty for a method that is not tuned.
        domains: The domains being merged.
        fixed: Parameters that are not searched.

    Returns:
        The candidates; as many as Table 6 says for the paper's grids, none for an empty grid. Those of stage "grid" lack the
        parameters that stage "domain" chooses: pass them on with `Candidate.given(choose(...))`.

    Raises:
        MergebenchError: The grid names a parameter that the method does not have, or a value out of range.
    """
    known = get(method)
    constant = dict(fixed or {})
    _check(known, grid, constant)
    if not grid:
        return []
    first = [
        Candidate(method, "domain", constant | {parameter: {domain: value}, "only": domain}, 1.0, (domain,))
        for name, parameter in known.per_domain.items()
        for domain in domains
        for value in grid.get(name, ())
    ]
    axes = {name: values for name, values in grid.items() if name not in known.per_domain}
    # The scale varies fastest: candidates that share a direction are neighbours.
    names = sorted(axes, key=lambda name: name == SCALE)
    points = [dict(zip(names, point, strict=True)) for point in itertools.product(*(axes[name] for name in names))]
    default = constant.pop(SCALE, known.validate().get(SCALE, 1.0))
    second = [
        Candidate(
            method,
            "grid",
            constant | {name: value for name, value in point.items() if name != SCALE},
            float(point.get(SCALE, default)),
            tuple(domains),
        )
        for point in points
    ]
    return first + second


def choose(scored: Iterable[tuple[Candidate, float]]) -> dict[str, Any]:
    """The per-domain parameters that stage "domain" found best: {parameter: {domain: value}}.

    Args:
        scored: Candidates of that stage with their values, higher being better. Of equal values the first wins.
    """
    best: dict[tuple[str, str], tuple[float, Any]] = {}
    for candidate, value in scored:
        (domain,) = candidate.domains
        for parameter in get(candidate.method).per_domain.values():
            key = (parameter, domain)
            if key not in best or value > best[key][0]:
                best[key] = (value, candidate.parameters[parameter][domain])
    chosen: dict[str, Any] = {}
    for (parameter, domain), (_, setting) in best.items():
        chosen.setdefault(parameter, {})[domain] = setting
    return chosen


def _check(method: Method, grid: Mapping[str, Sequence[float]], fixed: Mapping[str, Any]) -> None:
    method.validate(fixed)
    for name, values in grid.items():
        if not values:
            raise MergebenchError(f"The grid of {method.name} has no value for {name!r}; give one or leave {name!r} out.")
        for value in values:
            method.validate({**fixed, method.per_domain.get(name, name): value})
