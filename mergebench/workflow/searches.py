"""What the search of a method consists of: counts that follow from its grid, the domains and the seeds.

No torch here: every job estimates its resources with this module. `merging.candidates` makes the candidates that are counted here.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mergebench.merging.declarations import SCALE, declared
from mergebench.workflow.plan import Plan


@dataclass(frozen=True)
class Search:
    """The full search of one method on one base.

    Attributes:
        method: its name.
        settings: values that are tuned for one domain at a time, before all others; each is a candidate per domain.
        domains: the number of domains.
        points: candidates that are scored on the surrogates of all domains.
        builds: weight sets that must be computed, each of which serves all scales: one per setting and domain, and one per point without
            its scale.
        seeds: how often all of this is done.
    """

    method: str
    settings: int
    domains: int
    points: int
    builds: int
    seeds: int

    @property
    def candidates(self) -> int:
        """Points of the grid, as Table 6 counts them."""
        return self.settings * self.domains + self.points

    @property
    def evaluations(self) -> int:
        """Candidates that are installed and scored, each seed counted."""
        return self.candidates * self.seeds

    @property
    def passes(self) -> int:
        """How often all surrogates are asked in all: a setting is scored on the surrogates of its own domain."""
        return (self.settings + self.points) * self.seeds


def search(plan: Plan, method: str) -> Search:
    """Count the search of a method of a plan."""
    grid, seeds = plan.preset.merging.methods[method].grid, plan.search_seeds(method)
    per_domain = [name for name in grid if name in declared()[method].per_domain]
    settings, domains = sum(len(grid[name]) for name in per_domain), len(plan.domains)
    axes = {name: len(values) for name, values in grid.items() if name not in per_domain}
    points = math.prod(axes.values()) if grid else 0
    shared = math.prod(count for name, count in axes.items() if name != SCALE) if grid else 0
    return Search(method, settings, domains, points, seeds * (settings * domains + shared), seeds)


def searches(plan: Plan) -> list[Search]:
    """The searches of all tuned methods."""
    return [search(plan, method) for method in plan.tuned]


def fewest(plan: Plan, found: Search) -> float:
    """The fewest evaluations, in candidates scored on all items, with which `tuning.search` can end.

    Successive halving keeps at least its share after each block; golden section needs the steps of a Fibonacci search on every scale.
    """
    tuning = plan.preset.tuning
    if tuning.search == "halving":
        blocks, keep = tuning.halving.blocks, tuning.halving.keep
        races = [found.settings] * found.domains + [found.points]
        return found.seeds * sum(sum(_field(size, keep, blocks)) for size in races if size) / blocks
    if tuning.search == "golden":
        scales = len(plan.preset.merging.methods[found.method].grid.get(SCALE, [1]))
        return found.seeds * (found.settings * found.domains + found.points / scales * fibonacci(scales))
    return float(found.evaluations)


def fibonacci(size: int) -> int:
    """Evaluations with which the highest of `size` values in order can be found, if they rise and fall once."""
    steps, numbers = 0, (1, 1)
    while numbers[1] < size + 1:
        numbers, steps = (numbers[1], sum(numbers)), steps + 1
    return max(1, steps)


def _field(size: int, keep: float, blocks: int) -> Iterable[int]:
    """Candidates in each round of a race."""
    for _ in range(blocks):
        yield size
        size = max(1, math.ceil(keep * size))
