"""Searches on made-up outcomes: candidates whose items come out as a test says, without a model."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mergebench.artifacts import Job
from mergebench.merging.candidates import Candidate, candidates
from mergebench.merging.run import open_models
from mergebench.tuning.log import Evaluation, Key
from mergebench.tuning.scorer import dealt
from mergebench.tuning.trials import Trials

ITEMS = tuple(f"item-{number}" for number in range(40))
DOMAINS = ("math", "safety")
GRIDS = {
    "task_arithmetic": {"scale": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]},
    "ties": {"density": [0.1, 0.2, 0.3], "scale": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]},
    "regmean": {"reduction": [0.1, 0.3, 0.5, 0.7, 0.9]},
}

Outcome = Callable[[Candidate, int, str, int], float]
"""(candidate, seed, surrogate, number of the item) -> outcome."""


def numbered(method: str) -> dict[int, Candidate]:
    return dict(enumerate(candidates(method, GRIDS[method], DOMAINS)))


class Played:
    """A source that makes evaluations from outcomes, and counts them."""

    def __init__(self, outcome: Outcome, blocks: int = 1, seconds: float = 1.0) -> None:
        self.outcome, self.blocks, self.seconds = outcome, blocks, seconds
        self.made: list[Key] = []

    def evaluations(self, wanted: Sequence[tuple[Key, Candidate]]) -> Iterator[Evaluation]:
        for key, candidate in wanted:
            self.made.append(key)
            scores = [self.score(key, candidate, f"of_{domain}", domain) for domain in candidate.domains]
            yield Evaluation(*key, candidate.stage, candidate.recipe, str(key), None, {"score": self.seconds}, scores)

    def score(self, key: Key, candidate: Candidate, surrogate: str, domain: str) -> dict[str, Any]:
        items = ITEMS if key.block is None else dealt(ITEMS, self.blocks, surrogate)[key.block]
        outcomes = [float(self.outcome(candidate, key.seed, surrogate, ITEMS.index(item))) for item in items]
        return scored(surrogate, domain, items, outcomes)


def scored(surrogate: str, domain: str, items: Sequence[str], outcomes: Sequence[float]) -> dict[str, Any]:
    value = float(np.mean(outcomes))
    columns = {"item": list(items), "group": [""] * len(items), "outcome": list(outcomes)}
    return {
        "surrogate": surrogate,
        "domain": domain,
        "value": value,
        "n": len(items),
        "reference": 0.5,
        "normalised": value / 0.5,
        "seconds": 0.1,
        "items": columns,
    }


def together(parts: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Means over the items of all blocks."""
    found = []
    for scores in zip(*parts, strict=True):
        items = [item for score in scores for item in score["items"]["item"]]
        outcomes = [outcome for score in scores for outcome in score["items"]["outcome"]]
        found.append(scored(scores[0]["surrogate"], scores[0]["domain"], items, outcomes))
    return found


def trials(method: str, outcome: Outcome, blocks: int = 1, **options: Any) -> tuple[Trials, Played]:
    source = Played(outcome, blocks)
    return Trials(numbered(method), source, together, blocks=blocks, **options), source


def peaked(at: float, width: float = 1.0, noise: float = 0.0) -> Outcome:
    """Better the nearer the scale is to `at`; item by item the same noise for neighbours as for others."""

    def outcome(candidate: Candidate, seed: int, surrogate: str, item: int) -> float:
        drawn = np.random.default_rng([seed, item, round(candidate.scale * 10), len(surrogate)]).normal() if noise else 0.0
        return 1 - ((candidate.scale - at) / width) ** 2 + noise * drawn

    return outcome


class PlayedSession:
    """Stands for `session.Session`: real models and directions, made-up scores of whatever weights are installed.

    Args:
        job: of `twins.tune_job`.
        blocks: of items.
        halt: called before each thing that a killed search may be doing, with its name.
    """

    def __init__(self, job: Job, blocks: int = 1, halt: Callable[[str], None] = lambda what: None) -> None:
        self.job, self.halt = job, halt
        self.models = open_models(job)
        self.lm, self.live, self.scorer = None, self, self
        self.weights, self.blocks = "", blocks
        self.installed: list[str] = []
        self.scored: list[tuple[str, tuple[str, ...], int | None]] = []

    def install(self, direction: Mapping[str, Any], scale: float) -> str:
        self.halt("install")
        digest = hashlib.sha256()
        for name in sorted(direction):
            merged = self.models.base.tensor(name).float() + scale * direction[name]
            digest.update(merged.bfloat16().float().numpy().tobytes())
        self.weights = digest.hexdigest()
        self.installed.append(self.weights)
        return self.weights

    def surrogates(self, domains: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"of_{domain}" for domain in domains)

    def score(self, lm: Any, domains: Sequence[str], block: int | None) -> list[dict[str, Any]]:
        self.halt("score")
        self.scored.append((self.weights, tuple(domains), block))
        found = []
        for domain in domains:
            items = ITEMS if block is None else dealt(ITEMS, self.blocks, f"of_{domain}")[block]
            rng = np.random.default_rng([int(self.weights[:12], 16), len(domain)])
            quality, noise = rng.uniform(), rng.normal(size=len(ITEMS))
            outcomes = [float(quality + 0.2 * noise[ITEMS.index(item)]) for item in items]
            found.append(scored(f"of_{domain}", domain, items, outcomes))
        return found

    together = staticmethod(together)
