"""A search is the same search however often it is killed; stages, seeds, ties and budgets decide as is said of them.

Directions and weights are real, scores are made up from the weights.
"""

import contextlib
import shutil

import pandas as pd
import pytest
import yaml

from mergebench.errors import MergebenchError
from mergebench.merging.candidates import candidates
from mergebench.tuning import evaluator
from mergebench.tuning.log import SearchLog
from mergebench.tuning.search import search
from tests.unit.tuning.played import PlayedSession
from tests.unit.tuning.twins import tune_job

CONSENSUS = ("consensus_ta", {"threshold": [0.2, 0.4, 0.6], "scale": [0.3, 0.6, 0.9]})
TIES = ("ties", {"density": [0.2, 0.5], "scale": [0.3, 0.6, 0.9]})
SEARCHES = {
    "grid": (*CONSENSUS, {}),
    "halving": (*TIES, {"search": "halving", "blocks": 3, "halving": {"keep": 0.5, "confidence": 0.0}}),
    "golden": (*TIES, {"search": "golden"}),
    "budget": (*CONSENSUS, {"budget": {"evaluations": 5}}),
    "seeds": ("dare", {"density": [0.3], "scale": [0.4, 0.8]}, {"seeds": [0, 1]}),
}


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the package catches it."""


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return tune_job(tmp_path_factory.mktemp("family"), "ties", {})


def searched(job, folder, method, grid, settings, halt=lambda what: None):
    """Run a search in `folder`; the session, the outcome and the content of its files but the times."""
    session = PlayedSession(job, settings.get("blocks", 1), halt)
    spec = {**job.spec, "method": method, "grid": grid, **settings}
    folder.mkdir(exist_ok=True)
    outcome = search(session, spec, SearchLog(folder / "search.jsonl"))
    outcome.write(lambda name: folder / (f"{name}.yaml" if name == "best" else f"{name}.parquet"))
    files = {
        "search": pd.read_parquet(folder / "search.parquet").drop(columns="seconds"),
        "outcomes": pd.read_parquet(folder / "outcomes.parquet"),
        "curve": pd.read_parquet(folder / "curve.parquet").drop(columns="gpu_minutes"),
    }
    return session, outcome, {name: frame.to_csv() for name, frame in files.items()} | {"best": (folder / "best.yaml").read_text()}


@pytest.mark.parametrize("name", SEARCHES)
def test_killed_at_any_moment_it_ends_as_if_nothing_had_happened(job, tmp_path, name):
    """Killed before each installation and each scoring, every time anew, until it ends."""
    method, grid, settings = SEARCHES[name]
    whole, _, expected = searched(job, tmp_path / "whole", method, grid, settings)
    folder, kills, scored = tmp_path / "killed", set(), []

    def halt(what):
        moment = (what, (folder / "search.jsonl").read_text().count("\n"))
        if moment not in kills:
            kills.add(moment)
            raise Killed
        scored.extend([what] if what == "score" else [])

    found = None
    while found is None:
        with contextlib.suppress(Killed):
            _, _, found = searched(job, folder, method, grid, settings, halt)
    assert found == expected
    assert len(kills) == len(whole.installed) + len(whole.scored)
    assert len(scored) == len(whole.scored), "nothing is scored twice"


@pytest.mark.parametrize("name", SEARCHES)
def test_from_any_part_of_its_log_it_ends_the_same(job, tmp_path, name):
    """After every line, and with half of the next line written."""
    method, grid, settings = SEARCHES[name]
    _, _, expected = searched(job, tmp_path / "whole", method, grid, settings)
    lines = (tmp_path / "whole/search.jsonl").read_text().splitlines(keepends=True)
    for kept in range(len(lines)):
        folder = tmp_path / f"from-{kept}"
        folder.mkdir()
        (folder / "search.jsonl").write_text("".join(lines[:kept]) + lines[kept][: len(lines[kept]) // 2])
        session, _, found = searched(job, folder, method, grid, settings)
        assert found == expected
        assert len(session.installed) == len(lines) - kept
    session, _, found = searched(job, tmp_path / "whole", method, grid, settings)
    assert found == expected
    assert session.installed == []


def test_the_best_of_equals_is_the_first_in_the_order_of_the_grid(job, tmp_path, monkeypatch):
    monkeypatch.setattr(PlayedSession, "score", lambda self, lm, domains, block: _flat(domains))
    for name in ("grid", "golden", "budget"):
        method, grid, settings = SEARCHES[name]
        _, outcome, _ = searched(job, tmp_path / name, method, grid, settings)
        scored = pd.read_parquet(tmp_path / name / "search.parquet").query("stage == 'grid'")["candidate"]
        first = candidates(method, grid, job.spec["domains"])[scored.min()]
        assert outcome.parameters["scale"] == first.scale
        if name == "grid":
            assert outcome.parameters["thresholds"] == {"math": 0.2, "safety": 0.2}


def _flat(domains):
    from tests.unit.tuning.played import ITEMS, scored

    return [scored(f"of_{domain}", domain, ITEMS, [0.5] * len(ITEMS)) for domain in domains]


def test_seeds_are_scored_apart_and_the_mean_decides(job, tmp_path):
    method, grid, _ = SEARCHES["seeds"]
    _, outcome, _ = searched(job, tmp_path, method, grid, {"seeds": [0, 1, 2]})
    rows = pd.read_parquet(tmp_path / "search.parquet")
    assert rows.groupby("candidate")["weights"].nunique().tolist() == [3, 3], "another seed gives other weights"
    by_seed = rows.groupby(["candidate", "seed"])["normalised"].mean()
    means = by_seed.groupby("candidate").mean()
    assert outcome.objective == pytest.approx(means.max())
    best = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert best["seeds"] == pytest.approx(by_seed[means.idxmax()].to_dict(), abs=1e-6)
    assert best["spread"] == pytest.approx(by_seed[means.idxmax()].std(), abs=1e-6)
    assert (best["candidates"], best["evaluations"]) == (2, 6)


def test_a_budget_is_kept_and_its_curve_rises(job, tmp_path):
    method, grid, settings = SEARCHES["budget"]
    _, outcome, _ = searched(job, tmp_path, method, grid, settings)
    curve = pd.read_parquet(tmp_path / "curve.parquet")
    assert curve["evaluations"].max() == outcome.budget.spent_evaluations == 5
    assert curve["gpu_minutes"].is_monotonic_increasing
    found = curve["objective"].dropna()
    assert found.is_monotonic_increasing
    assert found.iloc[-1] == outcome.objective
    assert set(curve["stage"]) == {"domain", "grid"}, "both stages get their share"


def test_minutes_are_counted_from_the_log(job, tmp_path):
    method, grid, _ = SEARCHES["golden"]
    searched(job, tmp_path, method, grid, {})
    lines = (tmp_path / "search.jsonl").read_text().splitlines()
    slow = [line.replace('"seconds":{', '"seconds":{"waiting":60.0,', 1) for line in lines]
    (tmp_path / "search.jsonl").write_text("".join(f"{line}\n" for line in slow))
    _, outcome, _ = searched(job, tmp_path, method, grid, {"budget": {"gpu_minutes": 2.5}})
    assert len(outcome.outcomes) == 3, "the third was begun before the budget was spent"


def test_a_budget_too_small_for_any_result_is_an_error(job, tmp_path):
    method, grid, _ = SEARCHES["grid"]
    with pytest.raises(MergebenchError, match=r"before each of 2 domains.*raise tuning\.budget"):
        searched(job, tmp_path / "domains", method, grid, {"budget": {"evaluations": 1}})
    method, grid, _ = SEARCHES["golden"]
    with pytest.raises(MergebenchError, match=r"before one candidate of its 6.*raise tuning\.budget"):
        searched(job, tmp_path / "grid", method, grid, {"budget": {"evaluations": 0.5}})


def test_directions_that_do_not_fit_into_memory_are_computed_again_and_change_nothing(job, tmp_path, monkeypatch):
    """No more than one is on the disk at any time, and none afterwards."""
    held, on_disk = evaluator.hold, []

    def watched(tensors, folder, *, budget):
        assert list((tmp_path / "little").rglob("*.f32")) == []
        direction = held(tensors, folder, budget=budget)
        on_disk.append(direction.on_disk)
        return direction

    monkeypatch.setattr(evaluator, "hold", watched)
    for name in ("halving", "budget"):
        method, grid, settings = SEARCHES[name]
        _, _, expected = searched(job, tmp_path / f"plenty-{name}", method, grid, settings)
        assert sum(on_disk) == 0
        monkeypatch.setattr(evaluator, "memory_for_directions", lambda job: 1000)
        session, _, found = searched(job, tmp_path / "little", method, grid, settings)
        monkeypatch.undo()
        monkeypatch.setattr(evaluator, "hold", watched)
        assert found == expected
        assert sum(size > 0 for size in on_disk) > len(set(session.installed)) / 4
        assert list(tmp_path.rglob("*.f32")) == []
        shutil.rmtree(tmp_path / "little")
        on_disk.clear()


def test_directions_are_computed_once_for_all_their_scales(job, tmp_path, monkeypatch):
    computed = []
    planned_direction = evaluator.planned_direction
    monkeypatch.setattr(
        evaluator,
        "planned_direction",
        lambda models, plan, place, **o: computed.append(place) or planned_direction(models, plan, place, **o),
    )
    for name in ("grid", "halving", "golden", "budget", "seeds"):
        computed.clear()
        method, grid, settings = SEARCHES[name]
        session, _, _ = searched(job, tmp_path / name, method, grid, settings)
        assert method == "consensus_ta" or len(computed) == len(set(computed))
        assert len(computed) < len(session.installed)
