"""Rules are thin and keep clear of the traps that docs/workflow.md lists."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
RULES = sorted((ROOT / "rules").glob("*.smk"))


@pytest.mark.parametrize("path", RULES, ids=lambda p: p.name)
@pytest.mark.parametrize("trap", [r"^\s*retries:", r"^\s*group:", r"\btemp\(", r"^\s*checkpoint ", r"\bshadow:"])
def test_no_rule_uses_a_trap(path, trap):
    assert not re.search(trap, path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", RULES, ids=lambda p: p.name)
def test_a_gpu_request_comes_with_one_node(path):
    for block in re.split(r"\n(?=rule |    rule:)", path.read_text()):
        if "gpu=" in block:
            assert "nodes=1" in block


@pytest.mark.parametrize("path", [p for p in RULES if p.name != "common.smk"], ids=lambda p: p.name)
def test_every_rule_runs_one_mergebench_command(path):
    text = path.read_text()
    assert text.count("shell:") == text.count('"mergebench run ')


def test_there_is_no_default_profile():
    """An implicit profiles/default would replace whole keys of the chosen profile."""
    assert sorted(p.name for p in (ROOT / "profiles").iterdir()) == ["local", "slurm", "tiny"]


def test_the_gpu_quota_is_not_below_the_largest_job():
    """Snakemake clamps every request to it."""
    from mergebench.workflow.plan import RESOURCES

    quota = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())["resources"]["gpu"]
    assert quota >= max(job["gpu"] for jobs in RESOURCES.values() for job in jobs.values())


def test_site_facts_stand_in_profiles_only():
    text = "".join(p.read_text() for p in (*RULES, ROOT / "Snakefile", ROOT / "config.yaml"))
    assert not re.search(r"slurm_partition|slurm_account|gpu_model|constraint", text.replace("wildcard_constraints", ""))


def test_the_conda_environment_is_the_lock():
    lock = [line for line in (ROOT / "envs/cpu.lock").read_text().splitlines() if not line.startswith("#")]
    conda = yaml.safe_load((ROOT / "envs/cpu.yaml").read_text())["dependencies"][-1]["pip"]
    assert conda[1:] == lock


def test_the_lock_has_the_cpu_build_of_torch_and_no_cuda_package():
    lock = (ROOT / "envs/cpu.lock").read_text()
    assert re.search(r"^torch==2\.13\.0\+cpu$", lock, re.MULTILINE)
    assert "nvidia" not in lock


def test_the_lock_has_every_pin_of_the_project():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = [re.sub(r"\[.*?\]", "", d) for d in project["dependencies"]]
    lock = (ROOT / "envs/cpu.lock").read_text().replace("+cpu", "").replace("_", "-").splitlines()
    assert [p for p in pins if p.replace("_", "-") not in lock] == []
