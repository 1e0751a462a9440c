"""Evaluations from a live engine: a direction is computed once and held, its candidates are installed and scored one by one."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mergebench.artifacts import Job
from mergebench.merging.candidates import Candidate
from mergebench.merging.engine import planned_direction
from mergebench.merging.plan import Plan, Recipe, plan
from mergebench.tuning.held import Direction, hold
from mergebench.tuning.log import Evaluation, Key, SearchLog
from mergebench.tuning.session import Session

DIRECTION_BYTES = 4
"""Of each entry of a held direction, which is float32."""


class Evaluator:
    """Takes evaluations from the log, and makes those that are not there; a `trials.Source`.

    Args:
        session: the engine.
        scope: which parameters are merged.
        log: what has been evaluated; what is made is added.
        folder: for directions that do not fit into memory.
        revisits: whether directions are wanted again after others; those used last are then held, as many as fit into memory.
        told: called after each evaluation.
    """

    def __init__(
        self,
        session: Session,
        log: SearchLog,
        *,
        scope: str,
        folder: Path,
        revisits: bool = False,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self.session, self.log = session, log
        self._scope, self._folder, self._revisits = scope, folder, revisits
        self._told = told
        self._plan: Plan | None = None
        self._members: dict[tuple[int, int], int] = {}
        self._held: dict[int, Direction] = {}

    def __enter__(self) -> "Evaluator":
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def stage(self, keyed: Sequence[tuple[int, int, Candidate]]) -> None:
        """Begin with other candidates: number, seed and recipe of all that may be asked for."""
        self._release()
        self._plan, self._members = None, {}
        self._candidates = list(keyed)

    def evaluations(self, wanted: Sequence[tuple[Key, Candidate]]) -> Iterator[Evaluation]:
        """The evaluations wanted, in this order, each made when it is asked for."""
        for key, candidate in wanted:
            found = self.log.get(key)
            if found is None:
                found = self._made(key, candidate)
                self.log.add(found)
                self._told()
            yield found

    def _made(self, key: Key, candidate: Candidate) -> Evaluation:
        seconds: dict[str, float] = {}
        with timed(seconds, "direction"):
            direction = self._direction(key)
        live = self.session.live
        with timed(seconds, "install"):
            weights = live.install(direction, candidate.scale)
        scorer = self.session.scorer
        same = self.log.same_weights(weights, key.block, scorer.surrogates(candidate.domains))
        if same is None:
            with timed(seconds, "score"):
                scores = scorer.score(self.session.lm, candidate.domains, key.block)
        else:
            # Rounding makes neighbouring points of a grid coincide; the same weights have the same scores.
            scores = [{**score, "seconds": 0.0} for score in same.scores]
        return Evaluation(
            *key,
            stage=candidate.stage,
            parameters=candidate.recipe,
            weights=weights,
            alias_of=None if same is None else same.candidate,
            seconds={name: round(spent, 6) for name, spent in seconds.items()},
            scores=scores,
        )

    def _direction(self, key: Key) -> Direction:
        models, threads = self.session.models, self.session.job.threads
        if self._plan is None:
            recipes = [Recipe(candidate.method, candidate.recipe, seed) for _, seed, candidate in self._candidates]
            self._plan = plan(models, recipes, scope=self._scope, threads=threads)
            places = (place for place, _ in self._plan.members)
            self._members = {(number, seed): place for (number, seed, _), place in zip(self._candidates, places, strict=True)}
        place = self._members[key.candidate, key.seed]
        if place in self._held:
            self._held[place] = self._held.pop(place)  # the one used last stands at the end
        else:
            room = memory_for_directions(self.session.job)
            needed = DIRECTION_BYTES * sum(map(models.size, self._plan.names))
            # One that does not fit goes to the disk; to compute others again costs less than to keep them there.
            self._release(down_to=room - needed if self._revisits else 0)
            room -= sum(held.in_memory for held in self._held.values())
            computed = planned_direction(models, self._plan, place, threads=threads)
            self._held[place] = hold(computed, self._folder / str(place), budget=room)
        return self._held[place]

    def _release(self, down_to: int = 0) -> None:
        """Release directions, those not used for longest first, until the rest takes this many bytes at most."""
        while self._held and (down_to <= 0 or sum(held.in_memory + held.on_disk for held in self._held.values()) > down_to):
            self._held.pop(next(iter(self._held))).close()


@contextlib.contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Note the wall seconds of a block under `name`."""
    started = time.monotonic()
    yield
    seconds[name] = time.monotonic() - started


def memory_for_directions(job: Job) -> int:
    """Bytes of memory that held directions may take: half of what the job asked for, or of what the machine has."""
    asked = job.requested.get("mem_mb", 0) << 20
    return (asked or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) // 2
