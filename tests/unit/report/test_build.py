"""`mergebench report`: the report of whatever is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mergebench import cli
from mergebench.analysis.outputs import FIGURES
from tests.unit.analysis.synthetic import Campaign

ROOT = Path(__file__).parents[3]
BASE = "tiny-llama-strong"


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the `micro` preset with two scores and a merge that has failed; its report is written."""
    results = tmp_path_factory.mktemp("begun") / "micro"
    campaign = Campaign(results)
    campaign.write_score(BASE, "base", "gsm8k", 0.25)
    campaign.write_score(BASE, "specialist_math", "gsm8k", 0.75)
    log = results / "logs" / "merge" / BASE / "ties.log"
    log.parent.mkdir(parents=True)
    log.write_text("working\nmergebench: weights.safetensors has 3 bytes; make it again.\n")
    assert cli.main(["report", "--results", str(results), "--file", str(ROOT / "config.yaml")]) == 0
    return results


def test_an_unfinished_campaign_has_a_whole_report(begun: Path) -> None:
    page = (begun / "report" / "index.html").read_text()
    assert page.count("<img alt=") == len(FIGURES)
    assert "cannot say which one to use" in page
    assert f"-- {begun}/scores/{BASE}/merged_ties/gsm8k.json" in page
    assert f"{begun}/scores/{BASE}/base/gsm8k.json" not in page.partition('id="missing"')[2]


def test_a_job_that_has_failed_is_shown_with_its_reason(begun: Path) -> None:
    failures = (begun / "report" / "index.html").read_text().partition('id="failures"')[2].partition("</section>")[0]
    assert f"<strong>failed</strong> merge {BASE} ties: weights.safetensors has 3 bytes; make it again." in failures


def test_nothing_else_is_left_in_the_results(begun: Path) -> None:
    assert {path.name for path in begun.iterdir()} == {"scores", "logs", "report"}
    assert [path.name for path in (begun / "report").iterdir()] == ["index.html"]


def test_the_path_is_printed(begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mergebench.report.build.write", lambda plan, output: Path(plan.results) / str(output))
    assert cli.main(["report", "--results", str(begun), "--file", str(ROOT / "config.yaml"), "--output", "x.html"]) == 0
    assert capsys.readouterr().out == f"{begun}/x.html\n"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = tmp_path / "micro"
    assert cli.main(["report", "--results", str(absent), "--file", str(ROOT / "config.yaml")]) == 1
    assert f"{absent} is not a folder" in capsys.readouterr().err


def test_a_broken_record_is_named_and_the_old_page_stays(begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "micro"
    broken = Campaign(results).write_score(BASE, "base", "gsm8k", 0.25)
    broken.write_text(json.dumps({"value": 2}))
    page = results / "report" / "index.html"
    page.parent.mkdir()
    page.write_text("old")
    assert cli.main(["report", "--results", str(results), "--file", str(ROOT / "config.yaml")]) == 1
    assert str(broken) in capsys.readouterr().err
    assert page.read_text() == "old"
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]
