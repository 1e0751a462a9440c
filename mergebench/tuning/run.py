"""The `tune` stage: score every candidate of a method's grid on the surrogates and keep the best.

The surrogates are the only data that this stage can read. A candidate's objective is the mean over the domains of
its surrogate score divided by the score of that domain's specialist, as the paper normalises benchmarks (section
4.1). Of candidates with equal objectives the first in the order of the grid wins, which is the smallest scale.
"""

import json
import time
from collections.abc import Iterable
from typing import Any

import yaml

from mergebench import catalogue
from mergebench.artifacts import Job, read_json
from mergebench.errors import MergebenchError
from mergebench.evaluation.backends import load
from mergebench.evaluation.backends.transformers import TransformersLanguageModel
from mergebench.evaluation.harness import Suite
from mergebench.evaluation.safety import Judge, Remembering, judges
from mergebench.evaluation.settings import BenchmarkSetting
from mergebench.merging.candidates import Candidate, candidates, choose
from mergebench.merging.engine import planned_direction
from mergebench.merging.models import Models
from mergebench.merging.plan import Recipe, plan
from mergebench.merging.run import open_models
from mergebench.tuning.live import LiveWeights
from mergebench.tuning.log import SearchLog

LOWEST_REFERENCE = 0.01
"""A surrogate on which its own specialist scores less is not divided by that score; its plain value counts."""


def run(job: Job) -> dict[str, Any]:
    """Search the grid; write `search` (Parquet) and `best` (YAML).

    Spec: base, method, domains, grid, parameters, scope, seed, surrogates (domain -> names), evaluation (backend,
    dtype, settings of the surrogates). Inputs: those of a merge; data (manifests of the surrogates' rows); references
    (score records of the specialists on the surrogates). A killed search continues from its log in `job.state`.

    Returns:
        The number of candidates and the chosen parameters.

    Raises:
        MergebenchError: a reference is missing, or an input of the merge is wrong.
    """
    import torch

    torch.set_num_threads(job.threads)
    search = _Search(job)
    search.first_stage()
    best, objective, count = search.second_stage()
    search.log.write(job.staging("search"))
    chosen = {"parameters": best.recipe, "objective": round(objective, 6), "candidates": count}
    job.staging("best").write_text(yaml.safe_dump(chosen, sort_keys=True), encoding="utf-8")
    return chosen


class _Search:
    """One method's search in one process with one loaded model."""

    def __init__(self, job: Job) -> None:
        spec = job.spec
        self.job, self.log = job, SearchLog(job.state / "search.jsonl")
        self.domain_of = {s: domain for domain, names in spec["surrogates"].items() for s in names}
        _only_surrogates(self.domain_of)
        self.references = _references(job, self.domain_of)
        self.candidates = candidates(spec["method"], spec["grid"], spec["domains"], spec["parameters"])
        with job.timing("load"):
            self.models: Models = open_models(job)
            evaluation = spec["evaluation"]
            self.lm = load(evaluation["backend"], job.path("base"), dtype=evaluation["dtype"], seed=spec["seed"])
            if not isinstance(self.lm, TransformersLanguageModel):
                raise MergebenchError(
                    f"tuning writes candidates into a live model, which the {evaluation['backend']} backend does not allow; "
                    "set the backend of tuning to transformers."
                )
            self.live = LiveWeights(self.lm.model, self.models.base)
            self.judges = _judges(job)
        self.suites: dict[tuple[str, ...], Suite] = {}

    def first_stage(self) -> None:
        """Score the parameters that are tuned for one domain at a time, and settle them for the second stage."""
        first = [(number, c) for number, c in enumerate(self.candidates) if c.stage == "domain"]
        scored = [(candidate, self._objective(rows)) for candidate, rows in self._score(first)]
        self.chosen = choose(scored)

    def second_stage(self) -> tuple[Candidate, float, int]:
        """Score the grid; the best candidate, its objective, and the number of candidates in both stages."""
        second = [(number, c.given(self.chosen)) for number, c in enumerate(self.candidates) if c.stage == "grid"]
        scored = [(candidate, self._objective(rows)) for candidate, rows in self._score(second)]
        best, objective = max(scored, key=lambda pair: pair[1])  # max keeps the first of equals
        return best, objective, len(self.candidates)

    def _score(self, numbered: list[tuple[int, Candidate]]) -> list[tuple[Candidate, list[dict[str, Any]]]]:
        """Rows of every candidate: each direction is computed once for all of its scales, equal weights are scored once."""
        missing = [(number, candidate) for number, candidate in numbered if not self.log.of(number)]
        if missing:
            spec = self.job.spec
            with self.job.timing("algorithm"):
                recipes = [Recipe(candidate.method, candidate.recipe, spec["seed"]) for _, candidate in missing]
                planned = plan(self.models, recipes, scope=spec["scope"], threads=self.job.threads)
            for place in range(len(planned.directions)):
                members = [m for m, (direction, _) in zip(missing, planned.members, strict=True) if direction == place]
                with self.job.timing("algorithm"):
                    direction = list(planned_direction(self.models, planned, place, threads=self.job.threads))
                for number, candidate in members:
                    self._score_one(number, candidate, direction)
        return [(candidate, self.log.of(number)) for number, candidate in numbered]

    def _score_one(self, number: int, candidate: Candidate, direction: list[tuple[str, Any]]) -> None:
        with self.job.timing("algorithm"):
            weights = self.live.install(direction, candidate.scale)
        same = self.log.same_weights(weights, candidate.domains)
        if same is None:
            with self.job.timing("validation"):
                rows = self._rows(number, candidate)
        else:
            # Rounding makes neighbouring points of a grid coincide; the same weights have the same scores.
            known = {"candidate": number, "parameters": json.dumps(candidate.recipe, sort_keys=True), "seconds": 0.0}
            rows = [row | known for row in self.log.of(same)]
        self.log.add([row | {"weights": weights, "alias_of": same} for row in rows])
        self.job.progress(len({row["candidate"] for row in self.log.rows}), len(self.candidates), "candidates")

    def _rows(self, number: int, candidate: Candidate) -> list[dict[str, Any]]:
        names = tuple(s for s, domain in self.domain_of.items() if domain in candidate.domains)
        started = time.monotonic()
        records = self._suite(names).evaluate(self.lm)
        seconds = (time.monotonic() - started) / len(names)
        rows = []
        for name in names:
            summary, reference = records[name].summary, self.references[name]
            rows.append(
                {
                    "candidate": number,
                    "stage": candidate.stage,
                    "parameters": json.dumps(candidate.recipe, sort_keys=True),
                    "surrogate": name,
                    "domain": self.domain_of[name],
                    "value": summary["value"],
                    "n": summary["n"],
                    "reference": reference,
                    "normalised": summary["value"] / reference if reference >= LOWEST_REFERENCE else summary["value"],
                    "seconds": round(seconds, 3),
                }
            )
        return rows

    def _suite(self, names: tuple[str, ...]) -> Suite:
        """The surrogates as tasks, built once and used for every candidate."""
        if names not in self.suites:
            settings = self.job.spec["evaluation"]["benchmarks"]
            rows = {manifest.parent.name: manifest.with_name("rows.jsonl") for manifest in self.job.paths("data")}
            self.suites[names] = Suite([BenchmarkSetting.parse(s, settings[s]) for s in names], rows, judges=self.judges)
        return self.suites[names]

    def _objective(self, rows: list[dict[str, Any]]) -> float:
        """Mean over domains of the mean over the domain's surrogates."""
        by_domain: dict[str, list[float]] = {}
        for row in rows:
            by_domain.setdefault(row["domain"], []).append(row["normalised"])
        return sum(sum(values) / len(values) for values in by_domain.values()) / len(by_domain)


def _judges(job: Job) -> dict[str, Judge]:
    """Judges with a model, whose folder is an input: loaded beside the live model, and asked once about equal answers."""
    evaluation = job.spec["evaluation"]
    if not job.paths("judge"):
        return {}
    names = sorted({settings["judge"] for settings in evaluation["benchmarks"].values() if "judge" in settings})
    engine = {"backend": evaluation["backend"], "dtype": evaluation["dtype"]}
    labels = job.state.parent / "labels" / job.spec["base"]
    return {name: Remembering(judges.create(name, weights=job.path("judge"), **engine), labels) for name in names}


def _only_surrogates(names: Iterable[str]) -> None:
    """Refuse to tune on a benchmark."""
    for name in names:
        role = catalogue.benchmarks()[name]["role"]
        if role != "surrogate":
            raise MergebenchError(
                f"{name} is a benchmark ({role}), and tuning must not see one; name a surrogate in evaluation.surrogates."
            )


def _references(job: Job, domain_of: dict[str, str]) -> dict[str, float]:
    """The score of each surrogate's specialist, by surrogate."""
    found = {}
    for path in job.paths("references"):
        record = read_json(path)
        name = record["benchmark"]
        if name in domain_of and record["model"] == f"specialist_{domain_of[name]}":
            found[name] = float(record["value"])
    missing = [name for name in domain_of if name not in found]
    if missing:
        raise MergebenchError(
            f"no score of specialist_{domain_of[missing[0]]} on {missing[0]} was given; evaluate the specialist on its surrogate first."
        )
    return found
