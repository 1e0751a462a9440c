"""The search scores every candidate once, on surrogates only, and can be taken up where it was killed."""

import json

import pandas as pd
import pytest
import yaml

from mergebench.artifacts import execute
from mergebench.errors import MergebenchError
from mergebench.tuning import run as tuning
from mergebench.tuning.scorer import Scorer
from tests.unit.tuning.twins import tune_job


def search(folder):
    return pd.read_parquet(folder / "search.parquet"), yaml.safe_load((folder / "best.yaml").read_text())


def test_every_candidate_is_scored_on_every_surrogate_once(tmp_path):
    execute(tuning, tune_job(tmp_path, "ties", {"density": [0.2, 0.5], "scale": [0.5, 1.0, 1.5]}))
    log, best = search(tmp_path)
    assert best["candidates"] == 6
    assert len(log) == 6 * 2
    assert not log.duplicated(["candidate", "surrogate"]).any()
    assert set(log["surrogate"]) == {"mmlu_stem", "wildjailbreak"}


def test_the_best_has_the_highest_mean_of_normalised_scores_and_the_first_of_equals_wins(tmp_path):
    execute(tuning, tune_job(tmp_path, "task_arithmetic", {"scale": [0.1, 0.5, 2.0]}))
    log, best = search(tmp_path)
    assert (log["normalised"] == log["value"] / 0.5).all()
    objective = log.groupby("candidate")["normalised"].mean()
    assert best["objective"] == pytest.approx(objective.max(), abs=1e-6)
    winner = log[log["candidate"] == objective.idxmax()]["parameters"].iloc[0]
    assert json.loads(winner) == best["parameters"]


def test_consensus_tunes_each_threshold_on_its_own_domain_and_then_the_scale(tmp_path):
    execute(tuning, tune_job(tmp_path, "consensus_ta", {"threshold": [0.2, 0.4, 0.6], "scale": [0.3, 0.6]}))
    log, best = search(tmp_path)
    assert best["candidates"] == 3 * 2 + 2
    first, second = log[log["stage"] == "domain"], log[log["stage"] == "grid"]
    assert len(first) == 6
    assert len(second) == 2 * 2
    assert all(json.loads(p)["only"] == d for p, d in zip(first["parameters"], first["domain"], strict=True))
    assert set(best["parameters"]["thresholds"]) == {"math", "safety"}


def test_a_killed_search_continues_from_its_log(tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    execute(tuning, tune_job(whole, "task_arithmetic", {"scale": [0.1, 0.5, 1.0, 2.0]}))
    halted = tmp_path / "halted"
    job = tune_job(halted, "task_arithmetic", {"scale": [0.1, 0.5, 1.0, 2.0]})
    score = Scorer.score
    scored = []

    def stop_at_the_third(self, *arguments):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(len(scored))
        return score(self, *arguments)

    monkeypatch.setattr(Scorer, "score", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        execute(tuning, job)
    assert not (halted / "best.yaml").exists()
    monkeypatch.setattr(Scorer, "score", lambda self, *arguments: scored.append(len(scored)) or score(self, *arguments))
    execute(tuning, tune_job(halted, "task_arithmetic", {"scale": [0.1, 0.5, 1.0, 2.0]}))
    assert scored == [0, 1, 2, 3], "no candidate is scored twice"
    assert search(halted)[1] == search(whole)[1]


def test_a_benchmark_cannot_be_tuned_on(tmp_path):
    with pytest.raises(MergebenchError, match="gsm8k is a benchmark"):
        execute(
            tuning, tune_job(tmp_path, "task_arithmetic", {"scale": [0.5]}, surrogates={"math": ["gsm8k"], "safety": ["wildjailbreak"]})
        )


def test_a_missing_reference_is_named(tmp_path):
    job = tune_job(tmp_path, "task_arithmetic", {"scale": [0.5]})
    job.inputs["references"] = job.inputs["references"][:1]
    with pytest.raises(MergebenchError, match="specialist_safety on wildjailbreak"):
        execute(tuning, job)


def test_a_surrogate_on_which_its_specialist_fails_counts_unnormalised(tmp_path):
    job = tune_job(tmp_path, "task_arithmetic", {"scale": [0.5]})
    path = tmp_path / "mmlu_stem.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "value": 0.0}))
    execute(tuning, job)
    log, _ = search(tmp_path)
    row = log[log["surrogate"] == "mmlu_stem"].iloc[0]
    assert row["normalised"] == row["value"]


def test_the_same_weights_are_scored_once(tmp_path, monkeypatch):
    scored = []
    score = Scorer.score
    monkeypatch.setattr(Scorer, "score", lambda self, *arguments: scored.append(arguments) or score(self, *arguments))
    execute(tuning, tune_job(tmp_path, "task_arithmetic", {"scale": [0.5, 1.0, 0.5]}))
    log, _ = search(tmp_path)
    assert len(scored) == 2
    assert log[log["candidate"] == 2]["alias_of"].tolist() == [0, 0]
    assert log[log["candidate"] < 2]["alias_of"].isna().all()
    assert log.groupby("candidate")["weights"].first().tolist()[0] == log[log["candidate"] == 2]["weights"].iloc[0]
    assert log[log["candidate"] == 2]["value"].tolist() == log[log["candidate"] == 0]["value"].tolist()
