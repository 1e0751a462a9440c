"""What a search log says of its candidates, whole or in blocks, with one seed or several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from mergebench.report.curves import MOST_POINTS, curve
from mergebench.report.material import Material
from mergebench.report.searches import Search, parameters, rows, searches, summary
from tests.unit.report.conftest import LLAMA, Reported


def line(
    candidate: int, surrogate: str, normalised: float, *, block: int | None = None, seed: int = 0, seconds: float = 1.0
) -> dict[str, Any]:
    return {
        **{"candidate": candidate, "stage": "grid", "parameters": json.dumps({"scale": 0.1 * candidate}), "seed": seed},
        **{"surrogate": surrogate, "domain": surrogate, "block": block, "normalised": normalised, "seconds": seconds},
    }


@pytest.fixture
def read(finished: Reported, tmp_path: Path):
    """Reads a log of the first method that is tuned."""

    def made(lines: list[dict[str, Any]], best: dict[str, Any]) -> Search:
        folder = tmp_path / "tuning" / LLAMA / finished.campaign.scope.tuned[0]
        folder.mkdir(parents=True)
        pd.DataFrame(lines).astype({"block": "Int64"}).to_parquet(folder / "search.parquet")
        (folder / "best.yaml").write_text(yaml.safe_dump(best))
        files = {"searches": [folder / "search.parquet"], "winners": [folder / "best.yaml"]}
        return searches(Material(finished.spec, files))[0]

    return made


def test_an_objective_is_the_mean_over_domains(read) -> None:
    found = read([line(0, "a", 0.2), line(0, "b", 0.6)], {"parameters": {"scale": 0.0}, "objective": 0.4})
    (candidate,) = found.candidates
    assert candidate.objective == pytest.approx(0.4)
    assert candidate.chosen
    assert candidate.seconds == 1.0


def test_scores_on_all_items_count_before_those_on_blocks(read) -> None:
    blocks = [line(n, s, v, block=b) for n, s, v, b in [(0, "a", 0.0, 0), (0, "a", 1.0, 1), (1, "a", 0.4, 0)]]
    found = read([*blocks, line(0, "a", 0.7)], {"parameters": {"scale": 0.0}, "objective": 0.7})
    assert [(each.objective, each.blocks) for each in found.candidates] == [(pytest.approx(0.7), 0), (pytest.approx(0.4), 1)]


def test_seeds_are_averaged(read) -> None:
    found = read([line(0, "a", 0.2), line(0, "a", 0.4, seed=1)], {"parameters": {"scale": 9.0}, "objective": 0.3})
    (candidate,) = found.candidates
    assert (candidate.objective, candidate.seeds, candidate.chosen) == (pytest.approx(0.3), 2, False)


def test_a_search_without_a_log_is_missing(finished: Reported) -> None:
    found = searches(Material(finished.spec, {}))
    assert len(found) == 2 * len(finished.campaign.scope.tuned)
    assert {row["candidate"] for row in rows(found)} == {"missing"}
    assert all(row[2].text == "missing" for row in summary(found).rows)


def test_parameters_are_named_and_those_of_domains_apart() -> None:
    assert parameters({"scale": 0.5, "thresholds": {"math": 0.25}, "seed": None}) == "scale 0.5, thresholds.math 0.25"
    assert parameters({}) == "none"


def test_a_curve_keeps_its_ends_and_stays_small() -> None:
    drawn = curve([float(number) for number in range(10_000)], "x < y")
    points = str(drawn).partition('points="')[2].partition('"')[0].split()
    assert len(points) <= MOST_POINTS + 1
    assert (points[0], points[-1]) == ("3.0,33.0", "157.0,3.0")
    assert 'aria-label="x &lt; y"' in str(drawn)


def test_a_curve_of_nothing_is_nothing_and_a_flat_one_is_flat() -> None:
    assert curve([float("nan")], "") is None
    assert str(curve([1.0, 1.0], "")).count(",33.0") == 2
