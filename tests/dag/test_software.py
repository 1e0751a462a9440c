"""Snakemake installs and enters the environments of `--sdm`; conda and Apptainer are stand-ins that write down what they are asked."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dag.campaign import Campaign

pytestmark = pytest.mark.dag

TARGET = "results/micro/data/gsm8k/manifest.json"


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Campaign:
    """A copy of the workflow beside a folder `bin` of programs that precede all others."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return Campaign.create(tmp_path / "copy")


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}")
    path.chmod(0o755)


@pytest.fixture
def conda(tmp_path: Path) -> None:
    """A conda whose new environments are copies of the folder `environment`."""
    info = json.dumps({"conda_prefix": str(tmp_path), "platform": "linux-64"})
    program(
        tmp_path / "bin/conda",
        f"""case "$1" in
        info) echo '{info}';;
        --version) echo conda 25.3.1;;
        config) echo '{{"get": {{"channel_priority": "strict"}}}}';;
        env) for word in "$@"; do prefix=$word; done; mkdir "$prefix"; cp -r {tmp_path}/environment/bin "$prefix";;
        esac""",
    )
    (tmp_path / "bin/activate").write_text('export PATH="$1/bin:$PATH"\n')


@pytest.mark.usefixtures("conda")
def test_a_conda_environment_gets_the_lock_and_runs_the_job(campaign: Campaign, tmp_path: Path):
    python = f"""case "$*" in
    "-c "*) echo Linux x86_64 Python 3.11;;
    *) echo "$PWD $*" >> {tmp_path}/installed;;
    esac"""
    program(tmp_path / "environment/bin/python", python)
    program(tmp_path / "environment/bin/mergebench", f'echo "$1" >> {tmp_path}/ran\nexec {sys.executable} -m mergebench "$@"\n')
    campaign.run("--sdm", "conda", "--", TARGET, warm=False)
    installed = (tmp_path / "installed").read_text().splitlines()
    assert {line.split()[0] for line in installed} == {str(campaign.folder)}
    assert [line.partition("--requirement ")[2].split()[0] for line in installed[:-1]] == [
        *("envs/build.lock", "envs/torch-cpu.lock", "envs/cpu.lock")
    ]
    assert (tmp_path / "ran").read_text() == "run\n"
    assert (campaign.folder / TARGET).is_file()


@pytest.mark.usefixtures("conda")
def test_rules_that_run_models_take_cuda_where_a_base_needs_it(campaign: Campaign):
    """The preset alone decides, so that a result does not become stale on another machine."""
    asked = {}
    for preset in ("paper", "micro"):
        campaign.preset = preset
        summary = campaign.run("--dry-run", "--sdm", "conda", "--list-conda-envs", warm=False)
        asked[preset] = set(re.findall(r"envs/(\w+)\.yaml", summary, re.MULTILINE))
    assert asked == {"paper": {"cpu", "gpu"}, "micro": {"cpu"}}


def test_a_container_runs_the_jobs_with_the_package_of_the_run(campaign: Campaign, tmp_path: Path):
    program(
        tmp_path / "bin/apptainer",
        f"""[ "$1" = --version ] && exec echo apptainer version 1.3.0
        echo "$PYTHONPATH $*" >> {tmp_path}/asked
        while [ "$1" != bash ]; do shift; done
        PATH={tmp_path}/image:$PATH exec "$@"
        """,
    )
    definition = (campaign.folder / "envs/mergebench.def").read_text()
    command = next(line for line in definition.splitlines() if line.lstrip().startswith("printf"))
    (tmp_path / "image").mkdir()
    subprocess.run(["sh", "-c", f"{command}; chmod 755 command; mv command mergebench"], cwd=tmp_path / "image", check=True, timeout=30)
    campaign.run("--sdm", "apptainer", "--apptainer-args=--nv", "--", TARGET, warm=False)
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith(f"{campaign.folder / '.snakemake/mergebench/source-'}")
    assert f" exec --home {campaign.folder} --nv " in asked
    assert " envs/mergebench.sif bash -c " in asked
    assert (campaign.folder / TARGET).is_file()
