"""Tables of labels."""

import pytest

from mergebench.errors import MergebenchError
from mergebench.evaluation import safety
from mergebench.evaluation.safety.labels import Label


def test_a_table_comes_back_with_who_judged(tmp_path):
    labels = {("a", 0): Label(True, None, False, raw="x: yes"), ("b", 1): Label(parse_error=True, empty=True, cut=True, raw="é\n")}
    safety.write_labels(tmp_path / "m/labels.parquet", labels, {"name": "wildguard", "reads": ["harm"]})
    assert safety.read_labels(tmp_path / "m/labels.parquet") == (labels, {"name": "wildguard", "reads": ["harm"]})


def test_a_table_without_answers_is_a_table(tmp_path):
    safety.write_labels(tmp_path / "labels.parquet", {}, {"name": "keyword"})
    assert safety.read_labels(tmp_path / "labels.parquet") == ({}, {"name": "keyword"})


def test_a_lone_surrogate_does_not_stop_the_table(tmp_path):
    safety.write_labels(tmp_path / "labels.parquet", {("a", 0): Label(raw="\ud800!")}, {})
    [label] = safety.read_labels(tmp_path / "labels.parquet")[0].values()
    assert label.raw == "?!"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not a table"])
def test_what_is_no_table_is_named(tmp_path, content):
    (tmp_path / "labels.parquet").write_bytes(content)
    with pytest.raises(MergebenchError, match=r"labels\.parquet cannot be read as a table of labels"):
        safety.read_labels(tmp_path / "labels.parquet")


def test_a_table_of_something_else_is_named(tmp_path):
    import pandas

    pandas.DataFrame({"item": ["a"]}).to_parquet(tmp_path / "labels.parquet")
    with pytest.raises(MergebenchError, match="cannot be read as a table of labels"):
        safety.read_labels(tmp_path / "labels.parquet")


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(MergebenchError, match="does not exist; the judge has not labelled"):
        safety.read_labels(tmp_path / "labels.parquet")
