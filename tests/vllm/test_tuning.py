"""The `tune` stage gives the same scores through a live vLLM engine, through live transformers, and from merges on disk."""

import pandas as pd
import pytest

from mergebench.evaluation import backends
from mergebench.merging.engine import merge
from mergebench.merging.models import Models
from mergebench.tiny.shipped import shipped
from mergebench.tuning import run as tuning
from mergebench.tuning.scorer import Scorer
from tests.unit.tuning.twins import DOMAINS, SURROGATES, tune_job
from tests.vllm.merges import write_specialist

GRID = {"density": [0.2, 0.5], "scale": [0.4, 1.0]}


@pytest.fixture(params=["tiny-llama-strong", "tiny-gemma-2-strong"])
def job(request, tmp_path):
    def made(backend: str):
        job = tune_job(tmp_path, "ties", GRID)
        job.inputs["base"] = shipped(request.param)
        folders = [tmp_path / f"{domain}-of-twin" for domain in DOMAINS]
        for seed, folder in enumerate(folders):
            if not folder.exists():
                write_specialist(folder, shipped(request.param), seed)
        job.inputs["specialists"] = folders
        job.spec["evaluation"]["backend"] = backend
        job.state = tmp_path / f"state-{backend}"
        return job

    return made


def searched(job) -> pd.DataFrame:
    """The search log of a run of the stage: a row per candidate and surrogate."""
    tuning.run(job)
    columns = ["candidate", "surrogate", "weights", "value", "n"]
    return pd.read_parquet(job.staging("search"))[columns].sort_values(columns[:2], ignore_index=True)


def test_live_scores_are_those_of_merges_on_disk(tmp_path, job):
    given = job("vllm")
    live = searched(given)
    assert live["weights"].nunique() == 4
    models = Models.open(given.path("base"), dict(zip(DOMAINS, given.paths("specialists"), strict=True)))
    domain_of = {name: domain for domain, names in SURROGATES.items() for name in names}
    rows = {path.parent.name: path.with_name("rows.jsonl") for path in given.paths("data")}
    settings = given.spec["evaluation"]["benchmarks"]
    for candidate, (density, scale) in {1: (0.2, 1.0), 2: (0.5, 0.4)}.items():
        folder = tmp_path / str(candidate)
        record = merge(models, "ties", {"density": density, "scale": scale}, folder=folder)
        lm = backends.load("vllm", folder, dtype="float32", seed=0)
        scorer = Scorer(settings, rows, domain_of, dict.fromkeys(domain_of, 0.5), folder=tmp_path / "blocks")
        expected = {score["surrogate"]: score["value"] for score in scorer.score(lm, DOMAINS, None)}
        mine = live[live["candidate"] == candidate]
        assert dict(zip(mine["surrogate"], mine["value"], strict=True)) == expected
        assert set(mine["weights"]) == {record["realised_digest"]}
        lm.close()


def test_both_backends_score_the_same_weights(job):
    through = {backend: searched(job(backend)) for backend in ("vllm", "transformers")}
    same = ["candidate", "surrogate", "weights", "n"]
    assert through["vllm"][same].equals(through["transformers"][same])
    # Scores may part where two tokens are as good as equally probable.
    assert (through["vllm"]["value"] - through["transformers"]["value"]).abs().max() <= 0.25
