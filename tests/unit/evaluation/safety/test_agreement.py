"""Agreement of two judges."""

import random
from pathlib import Path

import pytest

from mergebench import cli
from mergebench.errors import MergebenchError
from mergebench.evaluation import safety
from mergebench.evaluation.safety.agreement import compare
from mergebench.evaluation.safety.labels import Label
from tests.unit.evaluation.safety.judged import HARMBENCH, KEYWORD, WILDGUARD


def table(path: Path, labels: list[Label], judge=WILDGUARD) -> Path:
    safety.write_labels(path, {(str(number), 0): label for number, label in enumerate(labels)}, judge)
    return path


def harm(values: str) -> list[Label]:
    """A label per letter: y, n, or - for not applicable, ? for unreadable."""
    return [Label(True, False, {"y": True, "n": False}.get(value), parse_error=value == "?") for value in values]


def found(tmp_path, one, other, judges=(WILDGUARD, WILDGUARD)):
    first, second = (
        table(tmp_path / f"{n}.parquet", labels, judge) for n, (labels, judge) in enumerate(zip((one, other), judges, strict=True))
    )
    return {agreement.part: agreement for agreement in compare(first, second)}


def test_a_worked_example(tmp_path):
    """Cohen 1960's measure by hand: 20 both yes, 15 both no, 5 and 10 split; chance 0.5, agreement 0.7, kappa 0.4."""
    result = found(tmp_path, harm("y" * 25 + "n" * 25), harm("y" * 20 + "n" * 5 + "y" * 10 + "n" * 15))["harm"]
    assert (result.n, result.agreement, result.kappa) == (50, 0.7, pytest.approx(0.4))


def test_judges_that_agree_always_have_kappa_one_and_those_that_say_one_thing_none(tmp_path):
    agreements = found(tmp_path, harm("ynny-"), harm("ynny-"))
    assert (agreements["harm"].agreement, agreements["harm"].kappa) == (1.0, 1.0)
    assert (agreements["refusal"].agreement, agreements["refusal"].kappa) == (1.0, None)


def test_unreadable_labels_are_left_out_and_counted(tmp_path):
    result = found(tmp_path, harm("y?ny"), harm("yy?n"))["harm"]
    assert (result.n, result.unreadable, result.agreement) == (2, 2, 0.5)


def test_unrelated_judges_have_kappa_near_zero_and_the_order_does_not_matter(tmp_path):
    draw = random.Random(0)
    one, other = ("".join(draw.choice("yyyn-") for _ in range(4000)) for _ in range(2))
    forth, back = found(tmp_path, harm(one), harm(other))["harm"], found(tmp_path, harm(other), harm(one))["harm"]
    assert forth.kappa == pytest.approx(0, abs=0.05)
    assert forth == back


def test_only_what_both_judges_label_is_compared(tmp_path):
    assert list(found(tmp_path, harm("yn"), harm("yy"), (WILDGUARD, HARMBENCH))) == ["harm"]
    with pytest.raises(MergebenchError, match="label nothing in common"):
        found(tmp_path, harm("yn"), harm("yy"), (KEYWORD, HARMBENCH))


def test_labels_of_other_answers_are_refused(tmp_path):
    with pytest.raises(MergebenchError, match="label different answers"):
        found(tmp_path, harm("yn"), harm("y"))


def test_folders_are_compared_by_the_names_of_their_files(tmp_path, capsys):
    for folder, letters in (("a", "yn"), ("b", "yy")):
        table(tmp_path / folder / "m/x.parquet", harm(letters))
        table(tmp_path / folder / "m/y.parquet", harm("nn"))
    table(tmp_path / "a/m/only.parquet", harm("y"))
    assert cli.main(["agreement", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["part", "answers", "agreement", "kappa", "unreadable"]
    assert lines[3].split() == ["harm", "4", "0.750", "0.500", "0"]
    assert lines[2].split() == ["refusal", "4", "1.000", "n/a", "0"]


def test_folders_without_a_common_file_are_refused(tmp_path):
    table(tmp_path / "a/x.parquet", harm("y"))
    (tmp_path / "b").mkdir()
    with pytest.raises(MergebenchError, match="no file of labels is both below"):
        compare(tmp_path / "a", tmp_path / "b")
