"""What makes a stage stale, and what does not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mergebench
from mergebench.fingerprint import closure
from mergebench.workflow.plan import MODULES

PACKAGE = Path(mergebench.__file__).parent


@pytest.fixture
def copy(tmp_path):
    """A copy of the package whose sources a test may edit; returns (folder, fingerprint of a module)."""
    folder = tmp_path / "mergebench"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))

    def fingerprint(module: str) -> str:
        code = f"from mergebench.fingerprint import fingerprint; print(fingerprint({module!r}))"
        return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    return folder, fingerprint


def test_comments_docstrings_layout_and_mtimes_do_not_count(copy):
    folder, fingerprint = copy
    before = fingerprint("mergebench.merging.run")
    engine = folder / "merging/engine.py"
    engine.write_text('"""Another docstring."""\n# a comment\n\n\n' + engine.read_text().split('"""', 2)[2])
    assert fingerprint("mergebench.merging.run") == before


def test_a_change_in_an_imported_module_counts(copy):
    folder, fingerprint = copy
    before = fingerprint("mergebench.merging.run")
    with (folder / "merging/engine.py").open("a") as stream:
        stream.write("\nNEW = 1\n")
    assert fingerprint("mergebench.merging.run") != before


def test_one_method_does_not_touch_another(copy):
    folder, fingerprint = copy
    ties, dare = (f"mergebench.merging.methods.{m}" for m in ("ties", "dare"))
    before = fingerprint(ties), fingerprint(dare), fingerprint("mergebench.merging.run")
    with (folder / "merging/methods/ties.py").open("a") as stream:
        stream.write("\nNEW = 1\n")
    assert fingerprint(ties) != before[0]
    assert fingerprint(dare) == before[1]
    assert fingerprint("mergebench.merging.run") == before[2]


@pytest.mark.parametrize("stage", MODULES)
def test_no_stage_depends_on_configuration_or_workflow(stage):
    """A new key in config.yaml must not retrain forty specialists."""
    foreign = [m for m in closure(MODULES[stage]) if m.startswith(("mergebench.config", "mergebench.workflow"))]
    assert foreign == []


@pytest.mark.parametrize(
    ("stage", "foreign"),
    [
        ("train", ("evaluation", "analysis", "tuning", "vectors")),
        ("merge", ("evaluation", "analysis", "tuning", "tiny")),
        ("evaluate", ("merging", "training", "analysis", "tuning", "tiny", "vectors")),
        ("analyse", ("merging", "training", "evaluation", "tuning", "tiny")),
        ("report", ("merging", "training", "evaluation", "tuning", "tiny")),
    ],
)
def test_layers_point_downwards(stage, foreign):
    reached = {m.split(".")[1] for m in closure(MODULES[stage]) if "." in m}
    assert reached.isdisjoint(foreign)
