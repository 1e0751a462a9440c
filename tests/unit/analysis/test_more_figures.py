"""Performance against time, bases in groups, and figures as PDF."""

from pathlib import Path

import pytest

from mergebench.analysis.figures import draw, save
from mergebench.analysis.group_figure import groups
from tests.unit.analysis.synthetic import Campaign, cut_off

BASES = ["gemma-2-2b", "llama-3.2-3b", "gemma-2-2b-it", "gemma-2-9b"]
LINEAGE = {
    "gemma-2-2b": {"size": "small", "instruction_tuned": False},
    "llama-3.2-3b": {"size": "small", "instruction_tuned": False},
    "gemma-2-2b-it": {"size": "small", "instruction_tuned": True},
    "gemma-2-9b": {"size": "large", "instruction_tuned": False},
}


@pytest.fixture
def grouped(campaign: Campaign) -> Campaign:
    """A campaign of three groups of bases."""
    campaign.bases, campaign.lineage = list(BASES), dict(LINEAGE)
    return campaign


def points(axes) -> set[tuple[float, float]]:
    """Where a panel has markers, legend aside."""
    marked = [line for line in axes.get_lines() if line.get_marker() not in ("None", "", None, "|", "_")]
    return {(float(x), float(y)) for line in marked for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}


def test_a_method_stands_at_its_time_and_performance(complete: Campaign) -> None:
    evidence = complete.evidence()
    axes = draw("performance_runtime", evidence).axes[0]
    base = complete.bases[0]
    costs = evidence.costs.loc[base]
    seconds = costs["algorithm_seconds"] + costs["validation_seconds"]
    performance = evidence.summary.loc[base]["performance"]
    wanted = {(seconds[method], performance[method]) for method in complete.methods}
    assert points(axes) == wanted


def test_time_is_logarithmic_where_it_spans_a_decade_only(campaign: Campaign) -> None:
    campaign.write()
    first = campaign.bases[0]
    campaign.write_cost(f"tune/{first}/ties", {"algorithm": 0.2, "validation": 0.2}, method="ties")
    campaign.write_cost(f"tune/{first}/fisher", {"algorithm": 0.2, "validation": 0.2}, method="fisher")
    campaign.write_cost(f"merge/{first}/model_soup", {"algorithm": 1.0}, method="model_soup")
    figure = draw("performance_runtime", campaign.evidence())
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "log"]
    assert ["logarithmic" in axes.get_xlabel() for axes in figure.axes] == [False, True]


def test_a_method_without_time_or_score_is_named_and_not_drawn(campaign: Campaign) -> None:
    campaign.write()
    first, second = campaign.bases
    (campaign.root / f"costs/merge/{first}/ties.json").unlink()
    campaign.score_path(second, "merged_fisher", "ifeval").unlink()
    axes = draw("performance_runtime", campaign.evidence()).axes
    assert "Missing: TIES" in axes[0].get_xlabel()
    assert "Missing: Fisher" in axes[1].get_xlabel()
    assert [len(points(panel)) for panel in axes] == [2, 2]


def test_every_base_is_in_one_group_smaller_and_pretrained_ones_first(grouped: Campaign) -> None:
    assert groups(grouped.scope) == {
        "Small, pretrained": ("gemma-2-2b", "llama-3.2-3b"),
        "Small, instruction-tuned": ("gemma-2-2b-it",),
        "Large, pretrained": ("gemma-2-9b",),
    }


def test_bases_of_which_nothing_is_known_are_one_group(complete: Campaign) -> None:
    assert groups(complete.scope) == {"All bases": tuple(complete.bases)}


def test_a_bar_is_the_mean_of_its_group_and_points_are_its_bases(grouped: Campaign) -> None:
    grouped.write(lambda base, model, benchmark: 0.8 if "specialist" in model else 0.4 if base == "gemma-2-2b" else 0.6)
    axes = draw("multitask_groups", grouped.evidence()).axes[0]
    assert axes.get_title(loc="left") == "Small, pretrained"
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([62.5] * 3)
    assert sorted({x for x, _ in points(axes)}) == pytest.approx([50.0, 75.0])


def test_a_group_that_lacks_a_score_has_no_mean(grouped: Campaign) -> None:
    grouped.write()
    grouped.score_path("llama-3.2-3b", "merged_ties", "ifeval").unlink()
    first, *others = draw("multitask_groups", grouped.evidence()).axes
    assert [text.get_text() for text in first.texts].count("missing") == 1
    assert len(first.patches) == len(grouped.methods) - 1
    assert all(text.get_text() != "missing" for axes in others for text in axes.texts)


def test_nothing_is_cut_off_of_figures_that_name_what_they_lack(campaign: Campaign) -> None:
    campaign.write()
    for base in campaign.bases:
        (campaign.root / f"costs/merge/{base}/ties.json").unlink()
        campaign.score_path(base, "merged_fisher", "ifeval").unlink()
    evidence = campaign.evidence()
    assert [name for name in ("performance_runtime", "multitask_groups") if cut_off(draw(name, evidence))] == []


def test_a_pdf_has_truetype_fonts_and_no_date(complete: Campaign, tmp_path: Path) -> None:
    save(draw("runtime", complete.evidence()), tmp_path / "figure", "pdf")
    content = (tmp_path / "figure").read_bytes()
    assert b"/CIDFontType2" in content
    assert b"/Type3" not in content
    assert not any(word in content for word in (b"CreationDate", b"/Producer", b"/Creator"))
    assert content.count(b"/Type /Page ") == 1
