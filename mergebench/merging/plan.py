"""The distinct directions of a list of recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mergebench.merging.cuts import Cuts, Request
from mergebench.merging.directions import Arithmetic, Direction
from mergebench.merging.models import Models
from mergebench.merging.passes import add_up, find_thresholds
from mergebench.merging.scope import ALL, names_counted, names_in_scope


@dataclass(frozen=True)
class Recipe:
    """One merge: base + scale * direction.

    Attributes:
        method: The method's name.
        parameters: Its parameters and its scale; what is absent has its default.
        seed: Seed of methods that draw random numbers.
    """

    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass
class Plan:
    """What a walk has to compute.

    Attributes:
        names: The parameters that are merged, sorted.
        directions: The distinct directions, ready to be computed.
        members: For each recipe, the number of its direction and its scale.
        requests: For each recipe, the thresholds that it asks for; recipes that share a direction may ask in different words.
        cuts: The thresholds.
    """

    names: list[str]
    directions: list[Direction]
    members: list[tuple[int, float]]
    requests: list[tuple[Request, ...]]
    cuts: Cuts


def plan(
    models: Models,
    recipes: Sequence[Recipe],
    *,
    scope: str = ALL,
    threads: int = 1,
    device: str = "cpu",
    arithmetic: Arithmetic = "float32",
) -> Plan:
    """Find the distinct directions of these recipes, their thresholds, and what else must be known before the walk.

    Two recipes share a direction if their methods and parameters are equal, but for parameters that act through thresholds alone:
    there the thresholds decide, and densities that keep the same entries are one direction.

    Raises:
        MergebenchError: A recipe is wrong, or a statistic is missing.
    """
    found: list[Direction] = []
    members: list[tuple[int, float]] = []
    for recipe in recipes:
        direction, scale = Direction.of(recipe.method, recipe.parameters, seed=recipe.seed, device=device, arithmetic=arithmetic)
        models.require(direction.method.statistics)
        if direction not in found:
            found.append(direction)
        members.append((found.index(direction), scale))
    counted = names_counted(models.base, scope)
    cuts = find_thresholds(models, found, counted, threads)
    numbers: dict[Any, int] = {}
    renumbered = [numbers.setdefault(_identity(direction, cuts), len(numbers)) for direction in found]
    distinct = [found[renumbered.index(number)] for number in range(len(numbers))]
    add_up(models, cuts, distinct, counted, threads)
    return Plan(
        names_in_scope(models.base, scope),
        distinct,
        [(renumbered[number], scale) for number, scale in members],
        [found[number].requests for number, _ in members],
        cuts,
    )


def _identity(direction: Direction, cuts: Cuts) -> tuple[Any, ...]:
    # Where a method asked for no thresholds, its parameters act otherwise.
    through = direction.method.through_thresholds if direction.requests else ()
    values = tuple((name, repr(value)) for name, value in sorted(direction.values.items()) if name not in through)
    return direction.method.name, direction.seed, values, tuple(cuts.identity(request) for request in direction.requests)
