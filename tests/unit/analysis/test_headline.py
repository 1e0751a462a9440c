"""What a terminal shows at the end of a run."""

import re
import subprocess
import sys

import pytest

from mergebench.analysis import run as stage
from mergebench.analysis.headline import render_folder
from mergebench.artifacts import execute
from mergebench.errors import MergebenchError
from tests.unit.analysis.synthetic import Campaign, plain_value

LLAMA = "tiny-llama-strong"


@pytest.fixture
def finished(campaign: Campaign) -> Campaign:
    """A campaign whose tables are made: Fisher is the best method, and one score of TIES is missing."""

    def fisher_leads(base: str, model: str, benchmark: str) -> float:
        return plain_value(base, model, benchmark) + (0.1 if model == "merged_fisher" else 0.0)

    campaign.write(fisher_leads).score_path(LLAMA, "merged_ties", "gsm8k").unlink()
    execute(stage, campaign.job(["headline.csv", "specialisation.csv"]))
    return campaign


def block(text: str, first_word: str) -> list[str]:
    """The lines of one aligned table without its header and rule."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(first_word))
    return lines[start + 2 : lines.index("", start)]


def test_methods_are_ranked_and_missing_ones_come_last(finished: Campaign) -> None:
    names = [line.split("  ")[0].strip() or line.split()[0] for line in block(render_folder(finished.root), LLAMA)]
    assert names[0] == "Fisher"
    assert names[-1] == "TIES"


def test_a_missing_number_is_called_missing(finished: Campaign) -> None:
    assert block(render_folder(finished.root), LLAMA)[-1].split()[1:4] == ["missing"] * 3


def test_the_best_group_is_marked(finished: Campaign) -> None:
    table = finished.root / "tables/headline.csv"
    table.write_text(re.sub(r"^(.*,fisher,.*),[^,]*$", r"\1,yes", table.read_text(), flags=re.MULTILINE))
    lines = render_folder(finished.root).splitlines()
    assert {line.split("  ")[0] for line in lines if "†" in line} == {
        "Fisher †",
        "† not separable from the best method of its base at 5 % (tables/uncertainty.md)",
    }
    assert len({len(line) for line in block("\n".join(lines), LLAMA)}) == 1


def test_columns_line_up(finished: Campaign) -> None:
    assert len({len(line) for line in block(render_folder(finished.root), LLAMA)}) == 1


def test_the_specialisation_matrix_is_shown(finished: Campaign) -> None:
    assert "80 (+60)" in render_folder(finished.root)


def test_paths_of_what_exists_are_given(finished: Campaign) -> None:
    report = finished.root / "report" / "index.html"
    assert f"Tables:    {finished.root / 'tables'}" in render_folder(finished.root)
    assert "Report:" not in render_folder(finished.root)
    report.parent.mkdir()
    report.touch()
    assert f"Report:    {report}" in render_folder(finished.root)
    assert "Snakemake:" not in render_folder(finished.root)
    (finished.root / "snakemake-report.html").touch()
    assert render_folder(finished.root).splitlines()[-2:] == [
        f"Snakemake: {finished.root / 'snakemake-report.html'}",
        f"Report:    {report}",
    ]


def test_before_the_first_run_it_says_what_to_do(campaign: Campaign) -> None:
    with pytest.raises(MergebenchError, match=r"headline\.csv does not exist; run the workflow"):
        render_folder(campaign.root)


def test_it_needs_no_heavy_import() -> None:
    code = "import sys, mergebench.analysis.headline, mergebench.analysis.outputs; assert not {'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
