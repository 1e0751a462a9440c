"""The search of one method: its candidates in two stages, the strategy, the winner and the files that say so.

Of candidates with equal objectives the first in the order of the grid wins, which is the smallest scale; this holds for the values
that are tuned per domain too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import stdev
from typing import Any

import yaml

from mergebench.errors import MergebenchError
from mergebench.merging.candidates import Candidate, candidates, choose
from mergebench.tuning import racing
from mergebench.tuning.budget import Budget
from mergebench.tuning.evaluator import Evaluator
from mergebench.tuning.log import Evaluation, SearchLog, write_outcomes, write_search
from mergebench.tuning.session import Session
from mergebench.tuning.trials import Trials

FULL = "grid"
HALVING = "halving"
ACCOUNTS = {"algorithm": ("direction", "install"), "validation": ("score",)}


@dataclass(frozen=True)
class Settings:
    """How a method's grid is searched.

    Attributes:
        search: "grid" (every candidate), "halving" or "golden"; see `racing`.
        blocks: of items, for halving.
        keep, confidence: of halving.
        evaluations, gpu_minutes: the budget; None for no limit.
    """

    search: str = FULL
    blocks: int = 1
    keep: float = 0.5
    confidence: float = 2.0
    evaluations: float | None = None
    gpu_minutes: float | None = None

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> "Settings":
        """From the spec of a job."""
        return cls(search=spec.get("search", FULL), blocks=spec.get("blocks", 1), **spec.get("halving", {}), **spec.get("budget", {}))

    @property
    def strategy(self) -> racing.Strategy:
        """The function that asks for candidates."""
        if self.search == HALVING:
            return partial(racing.halving, keep=self.keep, confidence=self.confidence)
        return {FULL: racing.full, "golden": racing.golden}[self.search]

    @property
    def revisits(self) -> bool:
        """Whether candidates of one direction are asked for at different times."""
        return self.search != FULL or self.evaluations is not None or self.gpu_minutes is not None


@dataclass(frozen=True)
class Outcome:
    """What a search has found.

    Attributes:
        parameters: of the winner, for the merge.
        objective: of the winner; the mean over seeds.
        by_seed: its objective with each seed.
        candidates: points of the grid, as Table 6 counts them.
        budget: what was spent, with the curve.
        table: every evaluation, and for candidates that were scored in blocks one on all items.
        outcomes: the evaluations as they were made.
        seconds: wall seconds of all attempts at this search: ``algorithm`` (directions and their installation) and ``validation``
            (scoring), as paper section 4.3 tells them apart.
    """

    parameters: dict[str, Any]
    objective: float
    by_seed: dict[int, float]
    candidates: int
    budget: Budget
    table: list[Evaluation] = field(repr=False)
    outcomes: list[Evaluation] = field(repr=False)
    seconds: dict[str, float]

    def record(self) -> dict[str, Any]:
        """The content of ``best.yaml``."""
        found: dict[str, Any] = {
            "parameters": self.parameters,
            "objective": round(self.objective, 6),
            "candidates": self.candidates,
            "evaluations": round(self.budget.spent_evaluations, 6),
        }
        if len(self.by_seed) > 1:
            found["seeds"] = {seed: round(value, 6) for seed, value in self.by_seed.items()}
            found["spread"] = round(stdev(self.by_seed.values()), 6)
        return found

    def write(self, staging: Callable[[str], Path]) -> None:
        """Write the outputs ``search``, ``outcomes``, ``curve`` and ``best`` of a job."""
        write_search(self.table, staging("search"))
        write_outcomes(self.outcomes, staging("outcomes"))
        self.budget.write_curve(staging("curve"))
        staging("best").write_text(yaml.safe_dump(self.record(), sort_keys=True), encoding="utf-8")


def search(session: Session, spec: Mapping[str, Any], log: SearchLog, *, gpus: int = 0) -> Outcome:
    """Search the grid of one method.

    Args:
        session: the engine and the surrogates.
        spec: method, domains, grid, parameters, scope, seed or seeds; search, blocks, halving, budget where they differ from the defaults.
        log: what an earlier attempt has evaluated.
        gpus: held by the job.

    Raises:
        MergebenchError: the budget is too small for a result.
    """
    settings, seeds = Settings.of(spec), list(spec.get("seeds") or [spec["seed"]])
    numbered = dict(enumerate(candidates(spec["method"], spec["grid"], spec["domains"], spec["parameters"])))
    first = {number: c for number, c in numbered.items() if c.stage == "domain"}
    budget = Budget(settings.evaluations, settings.gpu_minutes, gpus)
    together = session.scorer.together if settings.blocks > 1 else _alone
    job = session.job

    def told() -> None:
        job.progress(len({key.candidate for key in log.evaluations}), len(numbered), f"candidates of {spec['method']}")

    with Evaluator(
        session,
        log,
        scope=spec["scope"],
        folder=log.path.parent / "directions",
        revisits=settings.revisits,
        told=told,
    ) as evaluator:

        def stage(members: Mapping[int, Candidate], share: float) -> Trials:
            evaluator.stage([(number, seed, candidate) for seed in seeds for number, candidate in members.items()])
            trials = Trials(members, evaluator, together, seeds=seeds, blocks=settings.blocks, budget=budget, share=share)
            settings.strategy(trials)
            return trials

        domain = stage(first, len(first) / len(numbered)) if first else None
        chosen = choose(_scored(domain)) if domain else {}
        _complete(chosen, first, spec["domains"], spec["method"])
        grid = stage({number: c.given(chosen) for number, c in numbered.items() if c.stage == "grid"}, 1.0)
    if not grid.asked:
        raise MergebenchError(
            f"the budget of tuning {spec['method']} was spent before one candidate of its {len(numbered)} was scored; raise tuning.budget."
        )
    best = grid.best()
    evaluations = [e for trials in (domain, grid) if trials for e in trials.evaluations()]
    wholes = [e for trials in (domain, grid) if trials for e in _wholes(trials)] if settings.blocks > 1 else []
    return Outcome(
        grid.candidates[best].recipe,
        grid.objective(best),
        grid.objectives(best),
        len(numbered),
        budget,
        [*evaluations, *wholes],
        evaluations,
        {account: sum(e.seconds.get(name, 0.0) for e in evaluations for name in names) for account, names in ACCOUNTS.items()},
    )


def _alone(parts: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Scores of surrogates that are always scored whole."""
    (scores,) = parts
    return [dict(score) for score in scores]


def _scored(trials: Trials) -> list[tuple[Candidate, float]]:
    """Candidates of the stage per domain with their objectives: of each domain those that were scored on most items."""
    most: dict[tuple[str, ...], int] = {}
    for evaluation in trials.evaluations():
        domains = trials.candidates[evaluation.candidate].domains
        most[domains] = max(most.get(domains, 0), trials.extent(evaluation.candidate))
    return [
        (trials.candidates[number], trials.objective(number))
        for number in trials.asked
        if trials.extent(number) == most[trials.candidates[number].domains]
    ]


def _complete(chosen: Mapping[str, Mapping[str, Any]], first: Mapping[int, Candidate], domains: Sequence[str], method: str) -> None:
    """Refuse a budget that has left a domain without a value."""
    lacking = [domain for found in chosen.values() for domain in domains if domain not in found]
    if first and (lacking or not chosen):
        raise MergebenchError(
            f"the budget of tuning {method} was spent before each of {len(domains)} domains had a candidate scored; raise tuning.budget."
        )


def _wholes(trials: Trials) -> list[Evaluation]:
    """Candidates that were scored on all blocks, as one evaluation on all items."""
    found = []
    for number in trials.asked:
        for seed in trials.seeds:
            parts = trials.parts(number, seed)
            if len(parts) == trials.blocks:
                seconds = {name: sum(part.seconds.get(name, 0.0) for part in parts) for name in ("direction", "install", "score")}
                found.append(
                    Evaluation(
                        number, seed, None, parts[0].stage, parts[0].parameters, parts[0].weights, parts[0].alias_of, seconds,
                        trials.scores(number, seed),
                    )
                )  # fmt: skip
    return found
