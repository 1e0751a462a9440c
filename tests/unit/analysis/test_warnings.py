"""A campaign that was tuned on a test set says so in everything that it makes."""

import csv
import dataclasses
import io
from pathlib import Path

import jinja2
import pytest
from docutils.core import publish_string

from mergebench.analysis import run as stage
from mergebench.analysis.figures import FIGURES, draw
from mergebench.analysis.headline import render_folder
from mergebench.analysis.outputs import FILENAMES
from mergebench.artifacts import execute
from tests.unit.analysis.synthetic import Campaign, cut_off
from tests.unit.workflow.test_plan import plan

CAPTIONS = sorted((Path(__file__).parents[3] / "rules/captions").glob("*.rst"))
WARNINGS = ["methods were tuned on a test set, IFEval, so nothing here is honest.", "another, with a comma"]
SAID = " ".join(WARNINGS)


MADE = [name for name in FILENAMES if name.endswith((".csv", ".md", ".tex"))] + ["runtime.png", "runtime.svg", "runtime.pdf"]


def made(campaign: Campaign, folder: str) -> dict[str, bytes]:
    job = campaign.job(MADE, folder)
    execute(stage, job)
    return {name: path.read_bytes() for name, path in job.outputs.items()}


@pytest.fixture(scope="module")
def warned_of(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A campaign with warnings; tests only read it."""
    campaign = Campaign(tmp_path_factory.mktemp("warned"))
    campaign.bases = campaign.bases[:1]
    campaign.warnings = list(WARNINGS)
    return campaign.write()


@pytest.fixture(scope="module")
def both(warned_of: Campaign) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """All tables and a figure of the same campaign, without and with warnings."""
    honest = made(dataclasses.replace(warned_of, warnings=[]), "honest")
    return honest, made(warned_of, "tables")


def test_every_table_and_figure_has_them(both: tuple[dict[str, bytes], dict[str, bytes]], warned_of: Campaign) -> None:
    honest, warned = both
    for name in MADE:
        assert honest[name] != warned[name], name
        if name.endswith(".md"):
            text = warned[name].decode()
            assert all(f"**Warning: {warning}**" in text for warning in WARNINGS)
            assert text.index("**Warning") < text.index("|"), "before the numbers"
            assert b"Warning" not in honest[name]
        if name.endswith(".tex"):
            text = warned[name].decode()
            assert all(text.count(f"Warning: {warning}") == text.count(r"\caption{") for warning in WARNINGS), "with every part"
            assert text.index("Warning") < text.index(r"\midrule"), "before the numbers"
            assert b"Warning" not in honest[name]
    evidence = warned_of.evidence()
    for name in FIGURES:
        title = draw(name, evidence).get_suptitle().replace("\n", " ")
        assert all(warning in title for warning in WARNINGS), name


def test_csv_has_them_in_every_row_and_is_the_same_table_without(both: tuple[dict[str, bytes], dict[str, bytes]]) -> None:
    honest, warned = both
    for name in (name for name in MADE if name.endswith(".csv")):
        plain, marked = ([*csv.reader(io.StringIO(files[name].decode()))] for files in both)
        assert marked[0] == [*plain[0], "warning"], name
        assert marked[1:] == [[*row, SAID] for row in plain[1:]], name
    assert honest.keys() == warned.keys()


@pytest.mark.usefixtures("both")
def test_the_terminal_says_it_first_and_once(warned_of: Campaign) -> None:
    text = render_folder(warned_of.root)
    assert text.startswith(f"WARNING: {SAID}")
    assert text.count("WARNING") == 1


@pytest.mark.parametrize("bases", [1, 3])
def test_no_warning_is_cut_off_a_figure(campaign: Campaign, bases: int) -> None:
    campaign.bases = ["tiny-llama-weak", "tiny-llama-strong", "tiny-gemma-2-strong"][:bases]
    campaign.warnings = plan("tiny-local", released).warnings
    evidence = campaign.write().evidence()
    assert [name for name in FIGURES if cut_off(draw(name, evidence))] == []


@pytest.mark.parametrize("path", CAPTIONS, ids=lambda path: path.stem)
def test_every_caption_begins_with_them(path: Path) -> None:
    template = jinja2.Environment(autoescape=False).from_string(path.read_text(encoding="utf-8"))
    honest, warned = (
        template.render(snakemake={"config": {"preset": "tiny", "warnings": warnings}}).strip() for warnings in ([], WARNINGS)
    )
    assert "Warning" not in honest
    assert warned.startswith(f"**Warning: {WARNINGS[0]}**")
    assert f"**Warning: {WARNINGS[1]}**" in warned
    assert "no test set" not in " ".join(warned.split())
    publish_string(warned, settings_overrides={"halt_level": 2, "report_level": 5})


def released(preset: dict) -> None:
    preset["evaluation"] |= {"protocol": "released", "apply_chat_template": False}


def test_the_released_protocol_warns_and_no_other_does() -> None:
    for protocol in ("corrected", "paper"):
        made = plan("paper", lambda p, protocol=protocol: p["evaluation"].update(protocol=protocol))
        assert made.warnings == []
        assert "warnings" not in made.spec("analyse")
    [warning] = plan("paper", released).warnings
    assert "tuned on a test set" in warning
    assert "ifeval_like is IFEval itself" in warning
    assert plan("paper", released).spec("analyse")["warnings"] == [warning]


def test_without_that_surrogate_or_without_tuning_there_is_nothing_to_warn_of() -> None:
    def without_instruction(preset: dict) -> None:
        released(preset)
        preset["domains"] = ["math", "coding"]

    def untuned(preset: dict) -> None:
        released(preset)
        preset["merging"]["methods"] = {"model_soup": {}, "fisher": {}}

    assert plan("paper", without_instruction).warnings == []
    assert plan("paper", untuned).warnings == []
