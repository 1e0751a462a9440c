"""What the analysis writes, and what of it Snakemake's report holds."""

from mergebench import catalogue
from mergebench.analysis.outputs import FIGURES, FILENAMES, TABLES
from mergebench.workflow.jobs import planned_jobs
from mergebench.workflow.plan import FILES
from tests.unit.workflow.test_plan import plan


def test_every_table_and_figure_is_a_target_in_every_format() -> None:
    made = plan()
    names = [path.rpartition("/")[2] for path in made.tables]
    assert sorted(names) == sorted(FILENAMES)
    assert len(names) == 3 * (len(TABLES) + len(FIGURES))
    [analyse] = [job for job in planned_jobs(made) if job.rule == "analyse"]
    assert set(made.tables) < set(analyse.outputs)


def test_the_report_holds_each_once_to_look_at_and_no_print() -> None:
    made = plan()
    shown = [(each.caption, each.category, each.labels["format"]) for each in made.reported]
    assert len(set(shown)) == len(shown)
    assert {form for *_, form in shown} == {"csv", "md", "png", "svg"}
    assert {path.rpartition(".")[2] for path in made.printed} == {"tex", "pdf"}
    assert set(made.tables) == {each.path for each in made.reported} | set(made.printed)


def test_what_the_paper_prints_is_part_of_the_analysis() -> None:
    folder = catalogue.FOLDER / "published"
    assert {f"catalogue/published/{path.name}" for path in folder.iterdir()} == set(FILES["analyse"])
