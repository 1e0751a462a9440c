"""The paper's tables of settings: what it prints, and what the campaign at hand has."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mergebench.analysis.prepared import read_prepared
from mergebench.analysis.scope import Scope
from mergebench.analysis.setting_tables import TABLES
from mergebench.analysis.tables import Evidence, Table
from mergebench.errors import MergebenchError
from mergebench.workflow.settings import settings
from tests.unit.analysis.synthetic import Campaign
from tests.unit.workflow.test_plan import plan


def unchanged(preset: dict) -> None:
    """A preset as it is."""


def made(name: str, preset: str = "paper", prepared: dict | None = None, change: Any = unchanged) -> Table:
    """A table of a campaign that has nothing but its settings, and the manifests of data that are given."""
    spec = plan(preset, change).spec("analyse")
    empty = pd.DataFrame()
    return TABLES[name](Evidence(Scope.from_spec(spec), empty, empty, empty, empty, empty, empty, prepared=prepared or {}))


def column(table: Table, key: str, value: str) -> dict[str, object]:
    return dict(zip(table.frame[key], table.frame[value], strict=True))


def test_table_6_as_printed_and_the_paper_preset_searches_as_much() -> None:
    printed = {
        "model_soup": 0, "task_arithmetic": 10, "fisher": 0, "regmean": 5, "ties": 30, "dare": 30, "consensus_ta": 35,
        "dataless_localize_and_stitch": 5, "localize_and_stitch": 0, "all": 115,
    }  # fmt: skip
    table = made("grids")
    assert column(table, "method", "runs_paper") == printed
    assert column(table, "method", "candidates") == printed
    assert column(table, "method", "hyperparameters_paper")["dare"] == "sparsity, scaling coefficient"


def test_a_campaign_with_its_own_grid_shows_its_own_grid() -> None:
    def smaller(preset: dict) -> None:
        preset["merging"]["methods"]["ties"]["grid"] = {"density": [0.2], "scale": [0.5, 0.75]}

    table = made("grids", change=smaller)
    assert column(table, "method", "candidates")["ties"] == 2
    assert column(table, "method", "runs_paper")["ties"] == 30
    assert column(table, "method", "grid")["ties"] == "density {0.2} × scale {0.5, 0.75}"
    assert column(table, "method", "grid")["consensus_ta"].startswith("threshold {0.2, 0.3, 0.4, 0.5, 0.6} for each domain, then scale {")


def test_table_3_as_printed() -> None:
    table = made("benchmarks")
    assert column(table, "title", "data_paper") == {
        "IFEval": "541", "GSM8K": "1320", "MATH": "5000", "M_MMLU": "60K", "M_ARC": "10.34K", "M_Hellaswag": "37.35K", "HumanEval+": "164",
        "MBPP+": "378", "WildGuardTest": "1730", "HarmBench": "410", "DoAnythingNow": "15.14K", "XSTest": "450",
        **dict.fromkeys(("MMLU", "TriviaQA", "SQuAD v2", "CoQA", "PubMedQA", "WMT14 fr-en"), "n/a"),
        **dict.fromkeys(("IFEval-like", "MMLU STEM", "LAMBADA", "CoNaLa", "WildJailbreak"), "n/a"),
    }  # fmt: skip
    metrics = column(table, "benchmark", "metric_paper")
    assert [metrics[name] for name in ("ifeval", "gsm8k", "math", "m_mmlu", "m_arc", "mbppplus", "harmbench", "xstest")] == [
        "Prompt level accuracy", "EM (8-shot CoT)", "EM (0-shot CoT)", "Accuracy", "Normalized accuracy", "Pass@1", "RTA", "Accuracy",
    ]  # fmt: skip
    assert (column(table, "benchmark", "shots")["gsm8k"], column(table, "benchmark", "shots")["math"]) == (8, 0)


def test_table_5_as_printed() -> None:
    table = made("training_rows")
    assert list(table.frame[["title", "training", "data_paper"]].itertuples(index=False, name=None)) == [
        ("TULU-3 persona IF", "SFT", "29.9K"),
        ("DART-Math (uniform)", "SFT", "591K"),
        ("NuminaMath-TIR", "GRPO", "72.4K"),
        ("Aya", "SFT", "5.94K"),
        ("Magicoder-Evol-Instruct", "SFT", "110K"),
        ("WildGuardMix and WildJailbreak", "SFT", "86.76K and 261.56K"),
    ]


def test_table_2_has_the_papers_descriptions() -> None:
    described = column(made("training_sets"), "dataset", "description")
    assert described["train_math"] == "Difficulty-aware math problems"
    assert described["train_multilingual"] == "Human-curated data in 65 languages"


def test_table_1_has_the_papers_categories_and_needs() -> None:
    table = made("methods")
    coefficients = ["model_soup", "task_arithmetic", "fisher", "regmean"]
    assert list(table.frame["method"])[:4] == coefficients
    assert set(table.frame["category"][4:]) == {"Sparsification"}
    needs = column(table, "method", "needs")
    assert needs["model_soup"] == "nothing"
    assert needs["fisher"] == needs["localize_and_stitch"] == "training samples"
    assert needs["regmean"] == "training samples, validation scores"
    for name in ("task_arithmetic", "ties", "dare", "consensus_ta", "dataless_localize_and_stitch"):
        assert needs[name] == "validation scores"  # section 3.3


def test_a_method_that_the_paper_lacks_stands_last_in_its_own_words() -> None:
    def more(preset: dict) -> None:
        preset["merging"]["methods"] = {"regmean_plus_plus": {}, **preset["merging"]["methods"]}

    last = made("methods", change=more).frame.iloc[-1]
    assert (last["method"], last["category"], last["expression"]) == ("regmean_plus_plus", "Not in the paper", "n/a")
    assert last["note"]


def test_rows_that_are_not_prepared_are_missing_and_named(campaign: Campaign) -> None:
    campaign.write_prepared("train_coding", notes=["a stand-in, two thousand instructions"], source="local")
    table = TABLES["training_rows"](campaign.evidence())
    assert column(table, "dataset", "train")["train_coding"] == 100
    assert pd.isna(column(table, "dataset", "train")["train_math"])
    assert any("`data/train_math/manifest.json`" in note and "train_coding" not in note for note in table.notes)
    sets = TABLES["training_sets"](campaign.evidence())
    assert column(sets, "dataset", "source")["train_coding"] == "Local files"
    assert column(sets, "dataset", "notes")["train_coding"].startswith("a stand-in")


def test_data_that_an_importing_campaign_does_not_prepare_is_not_missing() -> None:
    def imported(preset: dict) -> None:
        preset["training"] |= {"specialists": "hub", "multitask": None, "grpo": None}
        preset["merging"]["methods"] = {"model_soup": {}}

    assert not plan("paper", imported).training_sets
    table = made("training_rows", change=imported)
    assert set(table.frame["train"]) == {"n/a"}
    assert set(table.frame["training"]) == {"none: specialists are imported"}
    assert not any("Missing" in note for note in table.notes)


@pytest.mark.parametrize("preset", ["paper", "tiny", "micro", "tiny-local"])
def test_settings_are_json_and_small_enough_for_a_command_line(preset: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MERGEBENCH_REAL_DATA", str(tmp_path))
    found = settings(plan(preset))
    assert json.loads(json.dumps(found)) == found
    assert len(json.dumps(plan(preset).spec("analyse"))) < 60_000  # Linux takes 128 KiB for one argument


@pytest.mark.parametrize("wrong", [{"rows": {"train": -1}}, {"rows": []}, {"source": ""}, {"notes": "one"}, {"source_rows": None}])
def test_a_manifest_that_preparation_did_not_leave_is_refused_by_name(campaign: Campaign, wrong: dict) -> None:
    path = campaign.write_prepared("train_math", **wrong)
    with pytest.raises(MergebenchError, match=rf"train_math/manifest\.json: key '{next(iter(wrong))}'"):
        read_prepared([path])


@pytest.mark.parametrize("name", ["benchmarks", "training_rows", "training_sets"])
def test_before_anything_is_prepared_every_count_is_missing_and_none_is_zero(name: str) -> None:
    table = made(name)
    for key in {"prepared", "found", "train", "calibration", "source", "notes"} & set(table.frame):
        assert table.frame[key].isna().all(), key
    assert any(note.startswith("Missing until these are made: `data/") for note in table.notes)
