"""The parts of a Markdown table file."""

import pytest

from mergebench.analysis.render import to_markdown
from mergebench.analysis.tables import TABLES
from mergebench.report.grids import Cell, Grid, is_numeric, number
from mergebench.report.markdown import blocks, inline
from tests.unit.report.conftest import Reported

TEXT = """# Title

**Warning: beware of `this`**

| Base | Value | Verdict |
| ---- | ----: | ------: |
| a\\|b | 1.5 ± 0.1 † | off |
| c | missing | agreeing |

- First note.
- Second note.

## Another

| x |
| - |
| y |
"""


def test_parts_come_in_order_without_the_title() -> None:
    warning, first, notes, heading, second = blocks(TEXT)
    assert warning.paragraph == "<strong>Warning: beware of `this`</strong>"
    assert [[cell.text for cell in row] for row in first.grid.rows] == [["a|b", "1.5 ± 0.1 †", "off"], ["c", "missing", "agreeing"]]
    assert notes.notes == ("First note.", "Second note.")
    assert heading.heading == "Another"
    assert second.grid.rows == [[Cell("y")]]


def test_columns_of_numbers_are_those_on_the_right_with_a_number() -> None:
    assert [column.numeric for column in blocks(TEXT)[1].grid.columns] == [False, True, False]


def test_every_cell_and_note_of_the_analysis_is_kept(finished: Reported) -> None:
    evidence = finished.campaign.evidence()
    for make in TABLES.values():
        table = make(evidence)
        frame = table.frame if table.display is None else table.display
        found = blocks(to_markdown(table))
        (grid,) = [block.grid for block in found if block.grid is not None]
        assert (len(grid.rows), len(grid.columns)) == frame.shape
        assert sum(len(block.notes) for block in found) == len(table.notes)


def test_a_row_that_is_too_short_or_too_long_fits_its_head() -> None:
    (block,) = blocks("| a | b |\n| - | - |\n| 1 |\n| 1 | 2 | 3 |\n")
    assert [len(row) for row in block.grid.rows] == [2, 2]


def test_text_is_escaped() -> None:
    assert inline("`<b>` & **<i>**") == "<code>&lt;b&gt;</code> &amp; <strong>&lt;i&gt;</strong>"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("98.1 ± 1.0 †", 98.1),
        ("25.9 [22.5, 29.2]", 25.9),
        ("80.0 (+60.0)", 80.0),
        ("-0.5", -0.5),
        ("−0.5", -0.5),
        ("2,691", 2691.0),
        ("< 0.001", 0.001),
        ("1e-05", 1e-05),
        ("12.5 s", 12.5),
        ("10.34K", 10340.0),
        ("1.5M", 1.5e6),
        ("25 of 36 pairs", None),
        ("4.1 to 4.3", None),
        ("missing", None),
        ("", None),
    ],
)
def test_numbers_with_their_uncertainty_unit_or_mark_are_numbers(text: str, value: float | None) -> None:
    assert number(text) == value


def test_a_column_without_any_value_is_no_column_of_numbers() -> None:
    assert not is_numeric([Cell("missing"), Cell("n/a")])
    assert Grid.of(["a"], [["1"], ["missing"]]).columns[0].numeric
