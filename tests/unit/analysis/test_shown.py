"""Single tables in a terminal."""

import subprocess
import sys

import pytest

from mergebench.analysis import run as stage
from mergebench.analysis.outputs import TABLES
from mergebench.analysis.shown import list_tables, render_table
from mergebench.analysis.terminal import fitted
from mergebench.artifacts import execute
from mergebench.errors import MergebenchError
from tests.unit.analysis.synthetic import Campaign

LLAMA = "tiny-llama-strong"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    campaign = Campaign(tmp_path_factory.mktemp("shown"), warnings=["Tuned on a test set."]).write()
    campaign.score_path(LLAMA, "merged_ties", "gsm8k").unlink()
    execute(stage, campaign.job([f"{table.stem}.md" for table in TABLES]))
    return campaign


@pytest.mark.parametrize("name", [table.stem for table in TABLES])
def test_every_table_fits_with_all_its_cells(finished: Campaign, name: str) -> None:
    text = render_table(finished.root, name)
    assert max(map(len, text.splitlines())) <= 100
    page = (finished.root / f"tables/{name}.md").read_text()
    words = {
        word for line in page.splitlines() if line.startswith("| ") for word in line.replace("|", " ").split() if set(word) - set("-:")
    }
    assert [word for word in sorted(words) if word not in text] == []


def test_a_table_has_its_warnings_and_notes(finished: Campaign) -> None:
    text = render_table(finished.root, "normalised_performance")
    assert "Warning: Tuned on a test set." in text
    assert "- Rule: " in text
    assert "missing" in text


def test_parts_of_a_wide_table_repeat_the_names_of_its_rows() -> None:
    lines = fitted(("Name", "one", "two", "three"), [("x", "1" * 8, "2" * 8, "3" * 8), ("yy", "4", "5", "6")], 1, width=24)
    assert lines == [
        "Name       one       two",
        "----  --------  --------",
        "x     11111111  22222222",
        "yy           4         5",
        "",
        "Name     three",
        "----  --------",
        "x     33333333",
        "yy           6",
    ]


def test_long_cells_are_wrapped() -> None:
    words = " ".join(["word"] * 12)
    lines = fitted(("a", "b"), [("x", words)], 2)
    assert lines[2] == "x  " + " ".join(["word"] * 7)
    assert lines[3] == "   " + " ".join(["word"] * 5)


def test_tables_are_listed_with_what_is_made(campaign: Campaign, finished: Campaign) -> None:
    assert len(list_tables(finished.root).splitlines()) == len(TABLES) + 2
    assert "not made" not in list_tables(finished.root)
    assert list_tables(campaign.root).count("not made") == len(TABLES)


def test_a_table_that_is_not_there_is_refused_in_a_sentence(campaign: Campaign) -> None:
    with pytest.raises(MergebenchError, match="did you mean 'forgetting'"):
        render_table(campaign.root, "forgeting")
    with pytest.raises(MergebenchError, match=r"forgetting\.md does not exist; make it"):
        render_table(campaign.root, "forgetting")
    path = campaign.root / "tables/forgetting.md"
    path.parent.mkdir()
    path.write_text("# Half a\n| table |\n")
    with pytest.raises(MergebenchError, match="holds no table"):
        render_table(campaign.root, "forgetting")


def test_it_needs_no_heavy_import() -> None:
    code = "import sys, mergebench.analysis.shown; assert not {'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_who_stops_reading_gets_no_traceback() -> None:
    code = "from mergebench.analysis.terminal import show_text; show_text('line\\n' * 100_000)"
    done = subprocess.run(["bash", "-c", f'"{sys.executable}" -c "{code}" | head -1'], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("line\n", "")
