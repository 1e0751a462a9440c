"""The benchmark of planning: a campaign whose bases are multiplied stays a valid one."""

import importlib.util
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dag():
    spec = importlib.util.spec_from_file_location("dag_benchmark", ROOT / "benchmarks/dag.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("copies", [1, 3])
def test_bases_are_multiplied_with_their_catalogue_entries(dag, tmp_path, copies):
    folder = dag.prepare(tmp_path / "campaign", copies)
    preset = yaml.safe_load((folder / "config.yaml").read_text())["presets"]["paper"]
    entries = yaml.safe_load((folder / "mergebench/catalogue/bases.yaml").read_text())
    assert len(set(preset["bases"])) == len(preset["bases"]) == 8 * copies
    assert len(set(preset["training"]["grpo"]["bases"])) == 4 * copies
    assert set(preset["training"]["grpo"]["bases"]) <= set(preset["bases"]) <= set(entries)
    assert preset["evaluation"]["jobs"] == "benchmark"


def test_the_table_counts_the_rules_of_evaluation_together(dag):
    rules = Counter({"evaluate_math": 2, "evaluate_mmlu": 3, "merge": 1234})
    lines = dag.table({"paper": (1.25, 1.0, 250.0, rules)}).splitlines()
    assert lines[0] == "| | paper |"
    assert "| peak memory (MB) | 250 |" in lines
    assert "| jobs | 1,239 |" in lines
    assert "| evaluate (one rule per benchmark) | 5 |" in lines
    assert "| merge | 1,234 |" in lines
