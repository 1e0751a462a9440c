"""`mergebench guideline`: the tables' answer for one situation, in words."""

from pathlib import Path

import pytest

from mergebench.analysis import run as stage
from mergebench.artifacts import execute
from mergebench.cli import main
from tests.unit.analysis.decisive import BASE, decisive

TABLES = ["costs.csv", "pareto.csv", "differences.csv"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    campaign = decisive(tmp_path_factory.mktemp("decisive"))
    execute(stage, campaign.job(TABLES))
    return campaign.root


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["guideline", *words]) == 0
    return capsys.readouterr().out


def section(text: str, heading: str) -> str:
    """The lines below a heading."""
    return f"\n{text}\n".partition(f"\n{heading}\n")[2].partition("\n\n")[0]


def test_the_answer_is_that_of_the_table(results: Path, capsys) -> None:
    text = asked(capsys, "--results", str(results), "--validation-data", "yes", "--memory-gib", "24", "--forgetting", "2")
    recommended = section(text, "Recommended")
    assert "Model Soup" in recommended
    assert "DARE" in recommended
    assert "Cheapest of them: DARE" in recommended
    assert "price (USD)" in recommended
    left_out = section(text, "Left out")
    assert "forgets 40.0 %" in next(line for line in left_out.splitlines() if "Task Arithmetic" in line)
    assert "needs 32 GiB" in next(line for line in left_out.splitlines() if "TIES" in line)
    assert "needs training data" in next(line for line in left_out.splitlines() if "Fisher" in line)


def test_who_is_worse_is_said_with_the_difference(results: Path, capsys) -> None:
    text = asked(capsys, "--results", str(results), "--validation-data", "yes", "--base", BASE)
    assert "37.5 points behind Task Arithmetic (p < 0.001)" in section(text, "Not recommended")


@pytest.mark.parametrize(
    ("limit", "value", "why"), [("--gpu-hours", "3.5", "needs 4 GPU-hours"), ("--hours", "0.01", "needs 0.0111 hours")]
)
def test_time_is_a_limit(results: Path, capsys, limit: str, value: str, why: str) -> None:
    assert why in section(asked(capsys, "--results", str(results), "--validation-data", "yes", limit, value), "Left out")


def test_nothing_possible_is_said(results: Path, capsys) -> None:
    assert "Nothing is possible" in asked(capsys, "--results", str(results), "--hours", "0")


def test_the_papers_tables_need_no_run(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = asked(capsys, "--published")
    assert "Model Soup" in section(text, "Recommended")
    assert "no table of memory, time or price" in text
    assert "guideline (section 4.4) agrees" in text


def test_a_base_of_the_paper_is_found_by_either_name(capsys) -> None:
    assert asked(capsys, "--published", "--base", "llama-3.1-8b") == asked(capsys, "--published", "--base", "Llama-3.1-8B")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--results", "{empty}"], "costs.csv does not exist; make it with"),
        (["--results", "{results}", "--base", "tiny-lama-strong"], "did you mean 'tiny-llama-strong'"),
        (["--published", "--memory-gib", "24"], "the paper prints no memory and no times"),
        (["--published", "--base", "llama-3.1-9b"], "not in the paper's tables"),
        (["--forgetting", "nan"], "--forgetting is nan"),
        (["--hours", "-1"], "--hours is -1"),
    ],
)
def test_a_wrong_question_gets_a_sentence(results: Path, tmp_path: Path, capsys, words: list[str], said: str) -> None:
    assert main(["guideline", *(word.format(results=results, empty=tmp_path) for word in words)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_warnings_of_the_run_come_first(tmp_path: Path, capsys) -> None:
    campaign = decisive(tmp_path, items=False)
    campaign.warnings = ["tuned on a test set."]
    execute(stage, campaign.job(TABLES))
    assert asked(capsys, "--results", str(tmp_path)).startswith("WARNING: tuned on a test set.")
