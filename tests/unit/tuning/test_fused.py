"""One job for all methods of a base finds what a job per method finds, with one engine start, and resumes where it was killed."""

import json

import pandas as pd
import pytest

from mergebench.artifacts import execute
from mergebench.tuning import fused, session
from mergebench.tuning import run as tuning
from mergebench.tuning.scorer import Scorer
from tests.unit.tuning.twins import tune_job

METHODS = {"task_arithmetic": {"scale": [0.5, 1.0]}, "consensus_ta": {"threshold": [0.2, 0.6], "scale": [0.4]}}
TABLES = ("search", "outcomes", "curve")


def fused_job(folder, alone):
    """All methods of a family whose jobs per method are `alone`."""
    job = tune_job(folder, "task_arithmetic", {})
    shared = {key: value for key, value in job.spec.items() if key not in ("method", "grid", "parameters", "scope")}
    job.spec = {**shared, "methods": {m: {"grid": grid, "parameters": {}, "scope": "all"} for m, grid in METHODS.items()}}
    job.stage, job.state = "tune_base", folder / "state-fused"
    job.outputs = {
        **{f"tuning/pico/{m}/{table}": folder / f"fused/{m}/{table}.parquet" for m in METHODS for table in TABLES},
        **{f"tuning/pico/{m}/best.yaml": folder / f"fused/{m}/best.yaml" for m in METHODS},
        **{f"costs/tune/pico/{m}": folder / f"fused/{m}.json" for m in METHODS},
        "cost": folder / "fused/cost.json",
    }
    return job


def test_it_leaves_what_a_job_per_method_leaves(tmp_path, monkeypatch):
    starts = []
    load = session.load
    monkeypatch.setattr(session, "load", lambda *a, **o: starts.append(a) or load(*a, **o))
    job = fused_job(tmp_path, METHODS)
    score = Scorer.score
    scored = []

    def killed_in_the_second_method(self, *arguments):
        if len(scored) == 4:
            scored.append("killed")
            raise KeyboardInterrupt
        scored.append(arguments)
        return score(self, *arguments)

    monkeypatch.setattr(Scorer, "score", killed_in_the_second_method)
    with pytest.raises(KeyboardInterrupt):
        execute(fused, job)
    execute(fused, fused_job(tmp_path, METHODS))
    assert len(starts) == 2, "one per attempt"
    assert len(scored) == 2 + 5 + 1, "what was scored is not scored again"
    for method, grid in METHODS.items():
        execute(tuning, tune_job(tmp_path, method, grid))
        together = tmp_path / "fused" / method
        assert (together / "best.yaml").read_bytes() == (tmp_path / "best.yaml").read_bytes()
        for table in TABLES:
            one, other = (pd.read_parquet(folder / f"{table}.parquet") for folder in (tmp_path, together))
            times = [name for name in ("seconds", "gpu_minutes") if name in one]
            pd.testing.assert_frame_equal(one.drop(columns=times), other.drop(columns=times))
        cost = json.loads((tmp_path / f"fused/{method}.json").read_text())
        assert (cost["stage"], cost["base"], cost["method"]) == ("tune", "pico", method)
        assert 0 < cost["timing"]["validation"] <= cost["wall_seconds"]
        assert cost["cpu_seconds"] > 0
        assert cost["energy_joules"].keys() == {"gpu", "cpu_package", "whole_node"}
    whole = json.loads((tmp_path / "fused/cost.json").read_text())
    assert (whole["stage"], whole["base"]) == ("tune_base", "pico")
