"""The same DAG on the authors' own benchmark files: every stage runs, every benchmark gets a score."""

import json
import os
from pathlib import Path

import pytest

from tests.dag.campaign import Campaign

DATA = os.environ.get("MERGEBENCH_REAL_DATA", "")

pytestmark = [
    pytest.mark.dag,
    pytest.mark.real,
    pytest.mark.skipif(not Path(DATA).is_dir() or not DATA, reason="MERGEBENCH_REAL_DATA does not name a folder of benchmark files"),
]

IN_DOMAIN = [
    "ifeval",
    "gsm8k",
    "math",
    "m_mmlu",
    "m_arc",
    "pud_prose",
    "humanevalplus",
    "mbppplus",
    "harmbench",
    "do_anything_now",
    "xstest",
]
FORGETTING = ["mmlu", "triviaqa", "squadv2", "coqa", "pubmedqa", "wmt14"]
SURROGATES = {"math": "mmlu_stem", "multilingual": "lambada", "coding": "conala"}
ROWS = 20
FEWER = {"coqa": 1}  # the folder holds an excerpt


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Campaign:
    campaign = Campaign.create(tmp_path_factory.mktemp("real"), preset="tiny-local")
    campaign.run()
    return campaign


def record(campaign: Campaign, model: str, benchmark: str) -> dict:
    return json.loads((campaign.results / f"scores/tiny-llama-strong/{model}/{benchmark}.json").read_text())


@pytest.mark.parametrize("benchmark", IN_DOMAIN + FORGETTING)
def test_a_merged_model_has_a_score_on_every_real_benchmark(finished, benchmark):
    found = record(finished, "merged_task_arithmetic", benchmark)
    scored = found["n"] + (found["unscorable"] or {}).get("count", 0)
    assert scored == FEWER.get(benchmark, ROWS)
    assert 0 <= found["value"] <= 1
    assert found["data"]["source"] == "local"


@pytest.mark.parametrize(("domain", "surrogate"), SURROGATES.items())
def test_a_specialist_has_a_score_on_its_real_surrogate(finished, domain, surrogate):
    found = record(finished, f"specialist_{domain}", surrogate)
    assert found["n"] == ROWS
    assert found["data"]["source"] == "local"


def test_the_specialists_are_trained_on_real_text(finished):
    for domain in ("instruction", "math", "multilingual", "coding"):
        manifest = json.loads((finished.results / f"data/train_{domain}/manifest.json").read_text())
        assert manifest["source"] == "local"
        assert manifest["source_files"]


def test_the_tables_are_there(finished):
    assert (finished.results / "tables/headline.csv").stat().st_size > 0


def test_a_second_run_has_nothing_to_do(finished):
    assert finished.planned() == {}
