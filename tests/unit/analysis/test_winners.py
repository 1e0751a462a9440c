"""The table of tuning says what the searches have chosen."""

import csv
import io

import pandas as pd
import pytest
import yaml

from mergebench.analysis.render import to_csv, to_markdown
from mergebench.analysis.scope import Scope
from mergebench.analysis.tables import TABLES
from mergebench.analysis.winners import read_winners
from mergebench.errors import MergebenchError
from tests.unit.analysis.synthetic import Campaign
from tests.unit.tuning.test_search import SEARCHES, searched
from tests.unit.tuning.twins import tune_job

LLAMA = "tiny-llama-strong"
SCOPE = Scope(bases=("pico",), methods=("consensus_ta", "dare"), domains=(), benchmarks=(), tuned=("consensus_ta", "dare"), statistics={})


@pytest.mark.parametrize("name", ["grid", "seeds"])
def test_winners_are_those_of_real_searches(tmp_path, name):
    method, grid, settings = SEARCHES[name]
    folder = tmp_path / "pico" / method
    folder.mkdir(parents=True)
    _, outcome, _ = searched(tune_job(tmp_path / "family", "ties", {}), folder, method, grid, settings)
    (winner,) = read_winners([folder / "best.yaml"], SCOPE).itertuples()
    assert (winner.base, winner.method, winner.candidates) == ("pico", method, outcome.candidates)
    assert winner.objective == pytest.approx(outcome.objective, abs=1e-6)
    assert winner.evaluations == outcome.budget.spent_evaluations
    assert winner.seeds == len(settings.get("seeds", [0]))
    assert pd.isna(winner.spread) == (winner.seeds == 1)
    assert f"scale {outcome.parameters['scale']:g}" in winner.parameters
    for domain, value in outcome.parameters.get("thresholds", {}).items():
        assert f"thresholds.{domain} {value:g}" in winner.parameters


def test_what_is_not_tuned_yet_is_missing_and_named(campaign: Campaign):
    campaign.write()
    best = campaign.root / "tuning" / LLAMA
    (best / "ties/best.yaml").unlink()
    known = yaml.safe_load((best / "fisher/best.yaml").read_text())
    (best / "fisher/best.yaml").write_text(yaml.safe_dump({**known, "seeds": {0: 0.8, 1: 0.9}, "spread": 0.0707}))
    table = TABLES["tuning"](campaign.evidence())
    rows = {(row["base"], row["method"]): row for row in csv.DictReader(io.StringIO(to_csv(table)))}
    assert len(rows) == len(campaign.bases) * 2, "of the tuned methods alone"
    assert rows[LLAMA, "ties"]["parameters"] == rows[LLAMA, "ties"]["objective"] == "missing"
    assert (rows[LLAMA, "fisher"]["seeds"], float(rows[LLAMA, "fisher"]["spread"])) == ("2", pytest.approx(7.07))
    assert rows["tiny-gemma-2-strong", "fisher"]["spread"] == "n/a"
    assert f"Missing until these are made: `tuning/{LLAMA}/ties/best.yaml`" in to_markdown(table)


@pytest.mark.parametrize("content", ["", "parameters: [", "parameters: {scale: 0.5}", "[1, 2]"])
def test_a_file_that_no_search_left_is_an_error(tmp_path, content):
    path = tmp_path / "pico/dare/best.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(MergebenchError, match=r"best\.yaml does not hold what a search has chosen.*tune again"):
        read_winners([path], SCOPE)
