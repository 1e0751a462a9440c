"""The state of one stage of a search: which candidates have been scored on what, and how they compare.

Strategies (`racing`) ask for candidates by number and see objectives and paired outcomes; where evaluations come from (a live
model, the log of a killed search, or a finished search that is replayed) is the source's business.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mergebench.merging.candidates import Candidate
from mergebench.tuning.budget import Budget
from mergebench.tuning.log import Evaluation, Key
from mergebench.tuning.scorer import divisor, objective


class Source(Protocol):
    """Where evaluations come from."""

    def evaluations(self, wanted: Sequence[tuple[Key, Candidate]]) -> Iterator[Evaluation]:
        """The evaluations wanted, in this order, each made when it is asked for."""


class Together(Protocol):
    """How scores on blocks become scores on all their items (`Scorer.together`)."""

    def __call__(self, parts: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]: ...


class Trials:
    """Candidates of one stage and their evaluations.

    Args:
        candidates: by number.
        source: who evaluates.
        together: how blocks are put together.
        seeds: those with which every candidate is evaluated.
        blocks: how many blocks of items there are; 1 scores the surrogates whole.
        budget: what may be spent.
        share: of the budget that this stage may spend, with the stages before it.
    """

    def __init__(
        self,
        candidates: Mapping[int, Candidate],
        source: Source,
        together: Together,
        *,
        seeds: Sequence[int] = (0,),
        blocks: int = 1,
        budget: Budget | None = None,
        share: float = 1.0,
    ) -> None:
        self.candidates = dict(candidates)
        self.seeds, self.blocks = tuple(seeds), blocks
        self.budget = budget or Budget()
        self._source, self._together, self._share = source, together, share
        self._found: dict[int, dict[Key, Evaluation]] = {}
        self._scores: dict[tuple[int, int], tuple[int, list[dict[str, Any]]]] = {}

    def ask(self, numbers: Sequence[int], block: int = 0) -> bool:
        """Evaluate candidates on one block, with every seed; those that have been are not evaluated again.

        Returns:
            Whether all were: False once the budget is spent.
        """
        place = None if self.blocks == 1 else block
        # Under a budget a candidate is finished before the next begins; else a direction is used for all of its scales.
        if self.budget.limited:
            keys = [Key(number, seed, place) for number in numbers for seed in self.seeds]
        else:
            keys = [Key(number, seed, place) for seed in self.seeds for number in numbers]
        new = [key for key in keys if key not in self._found.get(key.candidate, {})]
        cost = 1 / self.blocks
        source = self._source.evaluations([(key, self.candidates[key.candidate]) for key in new])
        for _ in new:
            if not self.budget.allows(cost, self._share):
                return False
            evaluation = next(source)
            self._found.setdefault(evaluation.candidate, {})[evaluation.key] = evaluation
            self.budget.charge(evaluation, 0.0 if evaluation.alias_of is not None else cost)
            complete = [self.objective(number) for number in self._found if self.complete(number)]
            self.budget.record(evaluation, max(complete) if complete and evaluation.stage == "grid" else None)
        return True

    @property
    def asked(self) -> list[int]:
        """Numbers of the candidates that have an evaluation, in order."""
        return sorted(self._found)

    def evaluations(self) -> list[Evaluation]:
        """Every evaluation."""
        return [evaluation for found in self._found.values() for evaluation in found.values()]

    def extent(self, number: int) -> int:
        """On how many blocks a candidate has been scored, each seed counted."""
        return len(self._found.get(number, {}))

    def complete(self, number: int) -> bool:
        """Whether a candidate has been scored on all items with every seed."""
        return self.extent(number) == self.blocks * len(self.seeds)

    def parts(self, number: int, seed: int) -> list[Evaluation]:
        """A candidate's evaluations with one seed, by block."""
        mine = [evaluation for key, evaluation in self._found[number].items() if key.seed == seed]
        return sorted(mine, key=lambda evaluation: evaluation.block or 0)

    def objective(self, number: int) -> float:
        """The mean over seeds of a candidate's objective on the items scored so far."""
        values = self.objectives(number).values()
        return sum(values) / len(values)

    def objectives(self, number: int) -> dict[int, float]:
        """A candidate's objective on the items scored so far, by seed."""
        seeds = sorted({key.seed for key in self._found[number]})
        return {seed: objective(self.scores(number, seed)) for seed in seeds}

    def scores(self, number: int, seed: int) -> list[dict[str, Any]]:
        """A candidate's scores on all items that it was scored on with one seed; see `log.Evaluation.scores`."""
        parts = self.parts(number, seed)
        known = self._scores.get((number, seed))
        if known is None or known[0] != len(parts):
            known = (len(parts), self._together([part.scores for part in parts]))
            self._scores[number, seed] = known
        return known[1]

    def best(self) -> int:
        """The candidate with the highest objective among those scored on most; of equal ones the first in the order of the grid.

        Raises:
            LookupError: not one has been scored.
        """
        if not self._found:
            raise LookupError("no candidate has been scored")
        return max(self.asked, key=lambda number: (self.extent(number), self.objective(number), -number))

    def difference(self, number: int, other: int) -> tuple[float, float]:
        """How much one candidate is better than another on the items that both were scored on, and the standard error of that.

        The difference is that of the weighted means of normalised outcomes, item by item. Its error is that of a stratified
        sample without replacement, which the blocks are: none is left once all items are scored.
        """
        total, variance = 0.0, 0.0
        mine, theirs = self._outcomes(number), self._outcomes(other)
        for surrogate, (weight, outcomes) in mine.items():
            common = sorted(outcomes.keys() & theirs[surrogate][1].keys())
            values = np.array([outcomes[item] - theirs[surrogate][1][item] for item in common])
            if not len(values):
                continue
            total += weight * float(values.mean())
            if len(values) > 1:
                seen = self._seen(number, other) / self.blocks
                variance += weight**2 * (1 - seen) * float(values.var(ddof=1)) / len(values)
        return total, float(np.sqrt(variance))

    def _seen(self, number: int, other: int) -> int:
        blocks = [{key.block for key in self._found[n]} for n in (number, other)]
        return len(blocks[0] & blocks[1])

    def _outcomes(self, number: int) -> dict[str, tuple[float, dict[str, float]]]:
        """Of each surrogate its weight in the objective, divided by the reference, and the outcome of each item, over seeds."""
        seeds = sorted({key.seed for key in self._found[number]})
        by_seed = [self.scores(number, seed) for seed in seeds]
        domains = [score["domain"] for score in by_seed[0]]
        found = {}
        for scores in zip(*by_seed, strict=True):
            score = scores[0]
            weight = 1 / (len(set(domains)) * domains.count(score["domain"]) * divisor(score["reference"]))
            values: dict[str, list[float]] = {}
            for each in scores:
                for item, outcome in zip(each["items"]["item"], each["items"]["outcome"], strict=True):
                    if outcome is not None:
                        values.setdefault(item, []).append(outcome)
            found[score["surrogate"]] = (weight, {item: sum(some) / len(some) for item, some in values.items()})
        return found
