"""Every file format, and every way in which a file can be wrong."""

import gzip
from pathlib import Path

import pytest

from mergebench.data.readers import read
from mergebench.errors import MergebenchError


def test_jsonl_keeps_unusual_line_separators_inside_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"text": "one\u2028two\u0085three"}\r\n\n{"text": "four"}\n'.encode())
    assert [record["text"] for record in read(path)] == ["one\u2028two\u0085three", "four"]


def test_csv_fields_may_hold_newlines_quotes_and_long_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('\ufeffprompt,label\n"two\nlines, ""quoted""",x\n' + "y" * 200_000 + ",z\n", encoding="utf-8")
    first, second = read(path)
    assert first == {"prompt": 'two\nlines, "quoted"', "label": "x"}
    assert len(second["prompt"]) == 200_000


def test_csv_without_a_header_takes_the_given_names(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("why,A\n")
    assert read(path, ["question", "answer"]) == [{"question": "why", "answer": "A"}]


def test_json_with_one_object_per_line_is_read_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    assert read(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n\n{"a": \n', r"a\.jsonl, line 3: not valid JSON"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', r"line 2: expected a JSON object, found a list"),
        ("a.jsonl", '{"a": 1}\n{"a": "é"}\n'.encode("latin-1"), r"line 2: a byte that is not UTF-8"),
        ("a.jsonl", b"\n \n", r"holds no records"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 100, mtime=0)[:-12], r"not a complete gzip file"),
        ("a.json", b'[\n{"a": 1},\n', r"a\.json, line 3: not valid JSON"),
        ("a.json", b"[3]", r"record 1: expected a JSON object, found a int"),
        ("a.csv", b"a,b\n1,2\n1\n", r"a\.csv, line 3: 1 fields, expected 2 \(a, b\)"),
        ("a.csv", b"a,b\n", r"holds no records"),
        ("a.conllu", b"# text = Hello\n", r"line 1: no `# (newdoc id|sent_id) =` line"),
        ("a.sgm", b"<doc docid='x'>\n", r"holds no records"),
        ("a.parquet", b"PAR1 and then nothing", r"not a complete Parquet file"),
        ("a.xlsx", b"x", r"unknown type '\.xlsx'"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MergebenchError, match=message):
        read(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MergebenchError, match=r"gone\.csv does not exist"):
        read(tmp_path / "gone.csv")


def test_a_missing_column_names_the_record_and_the_columns_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": 1, "a": 2}\n')
    (record,) = read(path)
    with pytest.raises(MergebenchError, match=r"a\.jsonl, line 1 has no column 'question'; it has 'q', 'a'"):
        record["question"]
