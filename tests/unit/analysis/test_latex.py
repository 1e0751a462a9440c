"""Tables as LaTeX: what a reader sees, what fits the page, and that a real LaTeX sets it."""

import re
import shutil
import string
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergebench import catalogue
from mergebench.analysis.latex import PREAMBLE, TEXT_HEIGHT, TEXT_WIDTH, to_latex
from mergebench.analysis.latex_text import Formula, escape, note, widest_piece, width
from mergebench.analysis.render import cells
from mergebench.analysis.run import TABLES
from mergebench.analysis.tables import MARK, Table
from tests.unit.analysis.synthetic import METHODS, Campaign

HOSTILE = [
    string.printable,
    "\\end{longtable} % & $x_1^2$ #1 ~",
    "[5pt] * ---- ,,`` !` <<>> fi",
    "Zo\u00eb \u0141ukasz \u00df \u4e2d\u6587 \U0001f600 \x07 \ufdfd a\u0301",
    "`",
]
SHARE = re.compile(r"p\{([0-9.]+)\\dimexpr\\linewidth-([0-9.]+)pt")
document_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)


def table(rows: int = 3, figures: int = 4, words: str = "name", name: str = "headline", **more: object) -> Table:
    """A table of one column of words and several of figures."""
    frame = pd.DataFrame({"base": [f"{words} {row // 3}" for row in range(rows)]})
    for number in range(figures):
        frame[f"heading of figure {number}"] = [float(row + number) for row in range(rows)]
    return Table(name, frame, ["Rule: a `mean_of` things."], **more)  # type: ignore[arg-type]


def parts(text: str) -> list[str]:
    return re.split(r"(?=\\begin\{(?:landscape|table)\}|\\begingroup\n\\fontsize)", text)[1:]


def test_every_cell_note_and_heading_of_markdown_is_there(complete: Campaign) -> None:
    evidence = complete.evidence()
    for name, make in TABLES.items():
        made = make(evidence)
        text = to_latex(made)
        for row in cells(made):
            for cell in row:
                shown = cell.latex if isinstance(cell, Formula) else escape(cell.replace(MARK, ""))
                assert cell in ("missing", "") or shown.removeprefix("[") in text, (name, cell)
        assert all(note(each) in text for each in made.notes), name
        assert rf"\label{{tab:{name}}}" in text


def test_the_head_of_the_file_says_what_the_preamble_needs() -> None:
    head = to_latex(table()).partition(r"\begin")[0]
    assert all(f"%   {line}" in head.splitlines() for line in PREAMBLE.splitlines())
    page = (Path(__file__).parents[3] / "docs/analysis.md").read_text(encoding="utf-8")
    assert f"```latex\n{PREAMBLE}\n```" in page


def test_figures_line_up_whether_they_are_marked_or_not() -> None:
    frame = pd.DataFrame({"base": ["a", "b", "c"], "value": [f"12.3{MARK}", "4.5", "missing"]})
    text = to_latex(Table("headline", frame, ["Rule: none."]))
    assert r"\mbox{12.3}\,\textsuperscript{\dag}" in text
    assert r"\mbox{4.5}\phantom{\,\textsuperscript{\dag}}" in text
    assert r"\emph{missing}" in text
    assert text.count(r"\raggedleft") == 1


def test_a_negative_number_has_a_minus_and_a_hyphen_stays_one() -> None:
    assert escape("-1.5 [-2.0, -1.0]").count(r"\ensuremath{-}") == 3
    assert escape("llama-3.2-3b 4.1-4.3") == "llama-3.2-3b 4.1-4.3"


def test_what_stands_between_backticks_is_code_and_may_be_broken() -> None:
    assert note("see `scores/a_base.json`.") == r"see \texttt{scores/\allowbreak{}a\_\allowbreak{}base.\allowbreak{}json}."


def test_no_two_letters_become_a_ligature_that_changes_them() -> None:
    assert "--" not in escape("snakemake --profile ---- x")
    assert ",," not in escape("a,,b,,,c")


@given(document_text)
def test_whatever_the_text_it_is_ascii_with_braces_that_close(text: str) -> None:
    made = escape(text)
    assert made.isascii()
    assert made.isprintable()
    bare = re.sub(r"\\[{}]", "", made)
    depth = 0
    for letter in bare:
        depth += (letter == "{") - (letter == "}")
        assert depth >= 0
    assert depth == 0


@given(document_text)
def test_no_special_letter_is_left_bare(text: str) -> None:
    bare = re.sub(r"\\ensuremath\{[^}]*\}|\\[a-zA-Z]+(\{\})?|\\[^a-zA-Z]", "", escape(text))
    assert not set(bare) & set("#$%&_^\\\"'<>|`")


@given(document_text, document_text)
def test_width_adds_up_and_no_piece_is_wider_than_the_whole(one: str, other: str) -> None:
    assert width(one + other) == pytest.approx(width(one) + width(other))
    assert widest_piece(one) <= width(one) + 1e-9


def test_a_short_table_floats_and_a_long_one_breaks_over_pages() -> None:
    assert r"\begin{table}" in to_latex(table(rows=5))
    assert r"\begin{longtable}" not in to_latex(table(rows=5))
    long = to_latex(table(rows=99))
    assert r"\begin{longtable}" in long
    assert long.count(r"heading of figure 0") == 2, "again on the next page"


def test_a_wide_table_is_turned_and_a_wider_one_comes_in_parts_with_its_names() -> None:
    assert r"\begin{landscape}" not in to_latex(table(figures=4))
    assert to_latex(table(figures=11)).count(r"\begin{landscape}") == 1
    made = parts(to_latex(table(figures=60)))
    assert len(made) > 1
    for part in made:
        assert "name 0" in part
        assert f"of {len(made)})" in part
    shown = [number for part in made for number in re.findall(r"heading of figure (\d+)\b", part.partition(r"\endfirsthead")[0])]
    assert [int(number) for number in shown] == list(range(60)), "each column once, in order"
    assert sum(part.count("Rule:") for part in made) == 1


@pytest.mark.parametrize("figures", [1, 4, 8, 11, 30, 60])
def test_columns_never_take_more_than_the_page(figures: int) -> None:
    for part in parts(to_latex(table(figures=figures, rows=40, words="a name that is rather long for a column of names"))):
        found = SHARE.findall(part)
        room = (TEXT_HEIGHT if "landscape" in part else TEXT_WIDTH) - float(found[0][1])
        assert sum(float(share) for share, _ in found) <= 1
        assert all(float(share) * room > 4 for share, _ in found)


def test_rows_of_one_base_stand_together() -> None:
    assert to_latex(table(rows=9)).count(r"\addlinespace") == 2


def test_a_table_without_rows_still_has_its_head_and_notes() -> None:
    text = to_latex(Table("crosscheck", pd.DataFrame({"base": [], "value": []}), ["Rule: none.", "No base is the paper's."]))
    assert "No base is the paper" in text
    assert r"\toprule" in text


def test_a_formula_is_set_as_one() -> None:
    frame = pd.DataFrame({"method": ["soup"], "model": [Formula("θ = 1/n Σ θt", r"\theta = \frac{1}{n} \sum_t \theta_t")]}, dtype=object)
    assert r"\ensuremath{\theta = \frac{1}{n} \sum_t \theta_t}" in to_latex(Table("methods", frame, ["Rule: none."]))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed (Debian: texlive-latex-extra)")
def test_latex_sets_every_table_of_a_whole_campaign_within_its_page(campaign: Campaign, tmp_path: Path) -> None:
    campaign.bases = [base for base in catalogue.bases() if not base.startswith("tiny-")]
    campaign.methods = [*METHODS, "regmean_plus_plus", "a_method_of_ones_own"]
    campaign.warnings = ["methods were tuned on a test set, IFEval: 100 % of it_is & was wrong."]
    campaign.write()
    shutil.rmtree(campaign.root / "scores" / campaign.bases[-1] / "merged_ties")
    evidence = campaign.evidence()
    files = {name: to_latex(make(evidence), campaign.warnings) for name, make in TABLES.items()}
    hostile = pd.DataFrame({"base": HOSTILE, "*[": HOSTILE[::-1], "value": range(len(HOSTILE))}, dtype=object)
    files["hostile"] = to_latex(Table("headline", hostile, [f"Rule: {text}" for text in HOSTILE]), HOSTILE)
    files["wide"] = to_latex(table(figures=60, rows=50))
    files["unbroken"] = to_latex(table(words="x" * 300))
    for name, text in files.items():
        (tmp_path / f"{name}.tex").write_text(text, encoding="utf-8")
    inputs = "\n".join(rf"\input{{{name}.tex}}\clearpage" for name in files)
    fonts = r"\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}"  # others may be made as bitmaps first, which takes long
    whole = f"\\documentclass{{article}}\n{PREAMBLE}\n{fonts}\n\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    (tmp_path / "whole.tex").write_text(whole, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "whole.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120, check=False)
    log = (tmp_path / "whole.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, log[-3000:]
    assert re.findall(r"Overfull.*", log) == []
    assert re.findall(r"LaTeX Warning: (?!There were|Label|Reference|`h' float)(.*)", log) == []
