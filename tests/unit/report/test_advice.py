"""What the first sentences say, and when they say that nothing can be said."""

import csv
from pathlib import Path

from mergebench.analysis.scope import Scope
from mergebench.report.advice import NOTHING, advice
from tests.unit.analysis.synthetic import Campaign

BASES = ["tiny-llama-strong", "tiny-gemma-2-strong"]
COLUMNS = (
    "base",
    "method",
    "normalised_performance",
    "standard_error",
    "retention",
    "algorithm_seconds",
    "validation_seconds",
    "best_group",
)


def scope(bases: list[str] = BASES) -> Scope:
    return Campaign(Path(), bases=bases).scope  # model_soup, ties, fisher


def written(path: Path, rows: list[tuple[object, ...]]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    return path


def rows(performance: dict[str, object], groups: tuple[str, ...], *, base: str, seconds: dict[str, float] | None = None) -> list:
    costs = seconds or {}
    return [
        (base, method, value, 1.0, 90.0, costs.get(method, "n/a"), 1.0 if method in costs else "n/a", "yes" if method in groups else "no")
        for method, value in performance.items()
    ]


def test_the_best_method_is_named_with_its_number(tmp_path: Path) -> None:
    path = written(tmp_path / "h.csv", rows({"model_soup": 50, "ties": 80.04, "fisher": 70}, ("ties",), base="Overall"))
    first, second, *_ = advice(path, scope())
    assert "TIES comes out first: 80.0 ± 1.0 %" in first
    assert second.startswith("The other 2 methods are worse")


def test_an_equal_that_is_cheaper_is_named(tmp_path: Path) -> None:
    cost = {"model_soup": 0.5, "ties": 40.0, "fisher": 3.0}
    performance = {"model_soup": 50, "ties": 80, "fisher": 79}
    lines = [row for base in BASES for row in rows(performance, ("ties", "fisher"), base=base, seconds=cost)]
    text = " ".join(advice(written(tmp_path / "h.csv", [*lines, *rows(performance, ("ties", "fisher"), base="Overall")]), scope()))
    assert "cannot be separated from Fisher" in text
    assert "It costs 41.0 s per base" in text
    assert "not separated from it is Fisher: 4.0 s" in text
    assert "Model Soup, takes 1.5 s and reaches 50.0 %" in text


def test_where_nothing_can_be_separated_it_says_so(tmp_path: Path) -> None:
    path = written(tmp_path / "h.csv", rows({"model_soup": 79, "ties": 80, "fisher": 78}, ("model_soup", "ties", "fisher"), base="Overall"))
    assert advice(path, scope())[0] == "Over 2 bases, no method can be separated from the one with the highest scores, TIES, at 5 %."


def test_without_items_nothing_is_said_to_be_worse(tmp_path: Path) -> None:
    found = [(*row[:-1], "n/a") for row in rows({"model_soup": 50, "ties": 80, "fisher": 70}, (), base="Overall")]
    text = " ".join(advice(written(tmp_path / "h.csv", found), scope()))
    assert "cannot be tested" in text
    assert "methods are worse" not in text


def test_methods_without_scores_are_not_compared(tmp_path: Path) -> None:
    path = written(tmp_path / "h.csv", rows({"model_soup": 50, "ties": "missing", "fisher": 70}, ("fisher",), base="Overall"))
    text = " ".join(advice(path, scope()))
    assert "Fisher comes out first" in text
    assert "scores are missing: TIES." in text


def test_without_any_score_it_says_nothing_but_that(tmp_path: Path) -> None:
    path = written(tmp_path / "h.csv", rows(dict.fromkeys(("model_soup", "ties"), "missing"), (), base="Overall"))
    assert advice(path, scope()) == [NOTHING]
    assert advice(None, scope()) == [NOTHING]


def test_leaders_of_finished_bases_are_named_before_all_are_finished(tmp_path: Path) -> None:
    found = rows({"ties": "missing"}, (), base="Overall") + rows({"ties": 80, "fisher": 70}, (), base=BASES[0])
    assert advice(written(tmp_path / "h.csv", found), scope())[1] == (
        f"So far the highest performance is, on {BASES[0]}: TIES (80.0 %) of 2 scored methods."
    )


def test_one_base_has_no_overall(tmp_path: Path) -> None:
    path = written(tmp_path / "h.csv", rows({"model_soup": 50, "ties": 80, "fisher": 70}, ("ties",), base=BASES[0]))
    assert advice(path, scope(BASES[:1]))[0].startswith(f"On {BASES[0]}, TIES")


def test_a_base_with_other_leaders_is_named(tmp_path: Path) -> None:
    performance = {"model_soup": 50, "ties": 80, "fisher": 70}
    lines = [
        *rows(performance, ("ties",), base=BASES[0]),
        *rows(performance, ("fisher",), base=BASES[1]),
        *rows(performance, ("ties",), base="Overall"),
    ]
    text = " ".join(advice(written(tmp_path / "h.csv", lines), scope()))
    assert f"best group on 1 of 2 bases; elsewhere others lead ({BASES[1]}: Fisher)" in text
