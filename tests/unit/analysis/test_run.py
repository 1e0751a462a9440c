"""The stage as a whole: files appear, reruns are byte-identical, wrong requests are refused."""

from pathlib import Path

import pytest
from docutils.core import publish_string

from mergebench.analysis import run as stage
from mergebench.analysis.figures import FIGURES, draw
from mergebench.analysis.outputs import FIGURES as DECLARED
from mergebench.analysis.outputs import FILENAMES
from mergebench.artifacts import execute
from mergebench.errors import MergebenchError
from tests.unit.analysis.synthetic import Campaign, cut_off

LLAMA = "tiny-llama-strong"
EACH = tuple(name for name in FILENAMES if not name.endswith((".png", ".pdf")))  # everything, figures in one format
CAPTIONS = Path(__file__).parents[3] / "rules" / "captions"


def made(campaign: Campaign, folder: str, outputs: tuple[str, ...] = FILENAMES) -> dict[str, bytes]:
    job = campaign.job(list(outputs), folder)
    execute(stage, job)
    return {name: path.read_bytes() for name, path in job.outputs.items()}


def test_everything_is_made_and_a_rerun_is_byte_identical(campaign: Campaign) -> None:
    campaign.write()
    for model in campaign.scope.models:
        campaign.write_items(LLAMA, model, "gsm8k", [1.0, 0.0, 1.0, 1.0])
    first, second = made(campaign, "first"), made(campaign, "second")
    assert first == second
    assert all(first.values())
    assert all(content.startswith(b"\x89PNG") for name, content in first.items() if name.endswith(".png"))
    assert all(b"<svg" in content[:1000] for name, content in first.items() if name.endswith(".svg"))
    assert all(content.startswith(b"%PDF") for name, content in first.items() if name.endswith(".pdf"))


def test_only_costs_change_with_other_seconds(campaign: Campaign) -> None:
    before = made(campaign.write(), "before", EACH)
    campaign.write_cost(f"merge/{LLAMA}/ties", {"algorithm": 123.0}, method="ties")
    after = made(campaign, "after", EACH)
    changed = {name.partition(".")[0] for name in EACH if before[name] != after[name]}
    assert changed == {"headline", "runtime", "performance_runtime", "costs", "efficiency", "claims"}  # claims on run time and memory


def test_a_partial_campaign_still_gives_every_output(campaign: Campaign) -> None:
    campaign.write()
    for path in campaign.root.glob(f"scores/{LLAMA}/merged_ties/*.json"):
        path.unlink()
    campaign.score_path(LLAMA, "specialist_math", "math").unlink()
    assert all(made(campaign, "tables", EACH).values())


def test_an_empty_campaign_gives_every_output(campaign: Campaign) -> None:
    assert all(made(campaign, "tables", EACH).values())


def test_a_campaign_without_multitask_model_gives_every_output(campaign: Campaign) -> None:
    campaign.multitask = False
    assert all(made(campaign.write(), "tables", EACH).values())


def test_only_what_is_asked_for_is_made(campaign: Campaign) -> None:
    made(campaign.write(), "tables", ("headline.csv",))
    assert [path.name for path in (campaign.root / "tables").iterdir()] == ["headline.csv"]


def test_outputs_go_by_file_name_whatever_their_key(campaign: Campaign) -> None:
    campaign.write()
    job = campaign.job([])
    job.outputs = {"table_1": campaign.root / "tables" / "forgetting.md"}
    execute(stage, job)
    assert job.outputs["table_1"].read_text().startswith("# Generalisation")


def test_an_unknown_output_is_refused_by_name(campaign: Campaign) -> None:
    with pytest.raises(MergebenchError, match=r"cannot make pie_chart\.png; it makes headline\.csv"):
        execute(stage, campaign.write().job(["pie_chart.png"]))


def test_every_declared_figure_can_be_drawn_and_no_other() -> None:
    assert {figure.stem for figure in DECLARED} == set(FIGURES)


@pytest.mark.parametrize("bases", [1, 3])
def test_no_text_of_a_figure_is_cut_off(campaign: Campaign, bases: int) -> None:
    campaign.bases = ["tiny-llama-weak", "tiny-llama-strong", "tiny-gemma-2-strong"][:bases]
    evidence = campaign.write().evidence()
    assert [name for name in FIGURES if cut_off(draw(name, evidence))] == []


def test_every_output_has_a_caption() -> None:
    stems = {name.partition(".")[0] for name in FILENAMES} | {"workflow", "report", "report_data"}
    assert {path.stem for path in CAPTIONS.glob("*.rst")} == stems
    assert all(len(path.read_text(encoding="utf-8")) > 100 for path in CAPTIONS.glob("*.rst"))


@pytest.mark.parametrize("path", sorted(CAPTIONS.glob("*.rst")), ids=lambda path: path.stem)
def test_captions_are_valid_restructured_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    publish_string(text, settings_overrides={"halt_level": 2, "report_level": 5})
