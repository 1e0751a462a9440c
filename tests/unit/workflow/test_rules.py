"""Rules are thin and keep clear of the traps that docs/workflow.md lists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RULES = sorted((ROOT / "rules").glob("*.smk"))


@pytest.mark.parametrize("path", RULES, ids=lambda p: p.name)
@pytest.mark.parametrize("trap", [r"^\s*retries:", r"^\s*group:", r"\btemp\(", r"^\s*checkpoint ", r"\bshadow:"])
def test_no_rule_uses_a_trap(path, trap):
    assert not re.search(trap, path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", RULES, ids=lambda p: p.name)
def test_a_gpu_request_comes_with_nodes(path):
    for block in re.split(r"\n(?=rule |    rule:)", path.read_text()):
        if "gpu=" in block:
            assert "nodes=1," in block or f'nodes=need("{path.stem}", "nodes"),' in block


@pytest.mark.parametrize("path", [p for p in RULES if p.name != "common.smk"], ids=lambda p: p.name)
def test_every_rule_runs_one_mergebench_command(path):
    """By `exec`: a shell in between would die of a signal, and take the worker with it while that saves."""
    text = path.read_text()
    assert text.count("shell:") == text.count('"exec mergebench run ')


def test_there_is_no_default_profile():
    """An implicit profiles/default would replace whole keys of the chosen profile."""
    assert sorted(p.name for p in (ROOT / "profiles").iterdir()) == ["local", "slurm", "tiny"]


def test_site_facts_stand_in_profiles_only():
    text = "".join(p.read_text() for p in (*RULES, ROOT / "Snakefile", ROOT / "config.yaml"))
    assert not re.search(r"slurm_partition|slurm_account|gpu_model|constraint", text.replace("wildcard_constraints", ""))
