"""One held-open engine on which all candidates of a job are scored: models, live weights, surrogates and judges.

Everything is opened when it is first needed: a search whose log is complete starts no engine.
"""

from collections.abc import Iterable
from functools import cached_property
from types import TracebackType
from typing import Any

from mergebench import catalogue
from mergebench.artifacts import Job, read_json
from mergebench.errors import MergebenchError
from mergebench.evaluation.backends import load
from mergebench.evaluation.safety import Judge, Remembering, judges
from mergebench.merging.models import Models
from mergebench.merging.run import open_models
from mergebench.tuning.live import LiveWeights
from mergebench.tuning.scorer import Scorer

BESIDE_JUDGE = {"live": 0.5, "judge": 0.35}
"""Shares of a GPU's memory for the two vLLM engines of a job that labels answers with a model."""


class Session:
    """The engine of a job and what is scored with it.

    Args:
        job: its spec says the surrogates and how they are scored; its inputs are models, data and references.

    Raises:
        MergebenchError: what is to be tuned on is no surrogate, or a reference is missing.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.domain_of = {s: domain for domain, names in job.spec["surrogates"].items() for s in names}
        only_surrogates(self.domain_of)
        self.references = references(job, self.domain_of)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if "lm" in self.__dict__:
            self.lm.close()

    @cached_property
    def models(self) -> Models:
        """Base and specialists, with the statistics and spectra among the inputs."""
        with self.job.timing("load"):
            return open_models(self.job)

    @cached_property
    def lm(self) -> Any:
        """The engine, started with the base's weights."""
        with self.job.timing("load"):
            evaluation = self.job.spec["evaluation"]
            longest = {"max_length": evaluation["max_length"]} if "max_length" in evaluation else {}
            return load(
                evaluation["backend"],
                self.job.path("base"),
                dtype=evaluation["dtype"],
                seed=self.job.spec["seed"],
                **longest,
                **self._memory("live"),
            )

    @cached_property
    def live(self) -> LiveWeights:
        """The engine's weights."""
        lm, models = self.lm, self.models
        with self.job.timing("load"):
            return LiveWeights(lm, models.base, threads=self.job.threads)

    @cached_property
    def scorer(self) -> Scorer:
        """The surrogates."""
        job = self.job
        return Scorer(
            job.spec["evaluation"]["benchmarks"],
            {manifest.parent.name: manifest.with_name("rows.jsonl") for manifest in job.paths("data")},
            self.domain_of,
            self.references,
            judges=self._judges(),
            blocks=max(spec.get("blocks", 1) for spec in (job.spec, *job.spec.get("methods", {}).values())),
            seed=job.spec["seed"],
            folder=job.state / "blocks",
        )

    def _memory(self, engine: str) -> dict[str, float]:
        """What an engine that takes a share of the GPU beforehand must leave to the other."""
        shared = self.job.paths("judge") and self.job.spec["evaluation"]["backend"] == "vllm"
        return {"gpu_memory": BESIDE_JUDGE[engine]} if shared else {}

    def _judges(self) -> dict[str, Judge]:
        """Judges with a model, whose folder is an input: loaded beside the live model, and asked once about equal answers."""
        evaluation = self.job.spec["evaluation"]
        if not self.job.paths("judge"):
            return {}
        names = sorted({settings["judge"] for settings in evaluation["benchmarks"].values() if "judge" in settings})
        engine = {"backend": evaluation["backend"], "dtype": evaluation["dtype"], **self._memory("judge")}
        labels = self.job.state.parent / "labels" / self.job.spec["base"]
        return {name: Remembering(judges.create(name, weights=self.job.path("judge"), **engine), labels) for name in names}


def only_surrogates(names: Iterable[str]) -> None:
    """Refuse to tune on a benchmark."""
    for name in names:
        role = catalogue.benchmarks()[name]["role"]
        if role != "surrogate":
            raise MergebenchError(
                f"{name} is a benchmark ({role}), and tuning must not see one; name a surrogate in evaluation.surrogates."
            )


def references(job: Job, domain_of: dict[str, str]) -> dict[str, float]:
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
