"""The worked examples of CONTRIBUTING.md, carried out on a copy of the tree."""

import re
import shutil

import pytest

from tests.docs.conftest import Copy
from tests.docs.pages import ROOT, Block, blocks

PAGE = ROOT / "CONTRIBUTING.md"


def apply(copy: Copy, block: Block) -> None:
    """Do with a block what the sentence before it says."""
    name = re.findall(r"`([\w./-]+\.(?:py|yaml))`", block.before)[-1]
    path = copy.folder / name
    if block.language == "diff":
        context, added = (line[1:] + "\n" for line in block.text.splitlines())
        text = path.read_text()
        assert text.count(context) == 1, f"{name} has the line {context!r} {text.count(context)} times"
        path.write_text(text.replace(context, context + added))
    elif f"New file `{name}`" in block.before:
        assert not path.exists()
        path.write_text(block.text)
    else:
        assert f"t the end of `{name}`" in block.before, block.before
        path.write_text(path.read_text().rstrip("\n") + ("\n\n\n" if path.suffix == ".py" else "\n") + block.text)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy of the tree to which the method, the base, the benchmark and the preset have been added."""
    copy = Copy(tmp_path_factory.mktemp("contributing") / "copy")
    shutil.copytree(ROOT / "tests", copy.folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks(PAGE):
        if block.language != "sh":
            apply(copy, block)
    return copy


def test_the_method_is_listed(extended: Copy):
    assert "magmax: MagMax (Marczak et al., 2024, https://arxiv.org/abs/2407.06322)" in extended.output("mergebench methods")


def test_the_method_keeps_the_contract_and_the_benchmark_its_ceiling(extended: Copy):
    tests = "tests/reference/test_methods.py tests/unit/merging/test_contract.py tests/unit/evaluation/test_boolq.py"
    printed = extended.output(f'python -m pytest -q -p no:cacheprovider {tests} -k "magmax or boolq"')
    passed = int(re.findall(r"(\d+) passed", printed)[0])
    assert passed > 15
    assert "skipped" not in printed


def test_all_three_are_planned(extended: Copy):
    printed = extended.output("snakemake -n --profile profiles/local --config preset=study")
    for wildcards in ("base=llama-3.2-1b, method=magmax", "dataset=boolq", "base=llama-3.2-1b, model=specialist_safety"):
        assert f"wildcards: {wildcards}\n" in printed
    assert "results/study/scores/llama-3.2-1b/merged_magmax/boolq.json" in printed
