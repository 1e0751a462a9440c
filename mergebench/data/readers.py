"""Read the file formats in which datasets are published. Every error names the file and the line."""

import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mergebench.data.records import Record
from mergebench.errors import MergebenchError

_BROKEN = "the file is damaged: get it again"


def read(path: Path, header: list[str] | None = None) -> list[Record]:
    """The records of a file, by its suffix; at least one.

    A JSON object is one record. CoNLL-U and SGML files give {"document", "segment", "text"} records.

    Args:
        path: a .jsonl, .jsonl.gz, .json, .csv, .tsv, .sgm, .conllu or .parquet file in UTF-8.
        header: column names of a CSV file that has no header line.
    """
    if not path.is_file():
        raise MergebenchError(f"{path} does not exist.")
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if suffix == ".csv" and header:
        records = list(_headerless(path, header))
    elif suffix in _READERS:
        records = list(_READERS[suffix](path))
    else:
        raise MergebenchError(f"{path} has the unknown type {suffix!r}; known are {', '.join(_READERS)}.")
    if not records:
        raise MergebenchError(f"{path} holds no records; {_BROKEN}.")
    return records


def _text(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise MergebenchError(f"{path} is not a complete gzip file ({error}); {_BROKEN}.") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise MergebenchError(f"{path}, line {line}: a byte that is not UTF-8; save the file as UTF-8.") from None


def _object(value: Any, where: str) -> Record:
    if not isinstance(value, dict):
        raise MergebenchError(f"{where}: expected a JSON object, found a {type(value).__name__}; {_BROKEN}.")
    return Record(value, where)


def _jsonl(path: Path) -> Iterator[Record]:
    # Not splitlines: the texts contain other line separators, such as U+2028.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise MergebenchError(f"{where}: not valid JSON ({error.msg}); {_BROKEN}.") from None
            yield _object(value, where)


def _json(path: Path) -> Iterator[Record]:
    try:
        document = json.loads(_text(path))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # one object per line, in spite of the name
            yield from _jsonl(path)
            return
        raise MergebenchError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}); {_BROKEN}.") from None
    if isinstance(document, list):
        for number, value in enumerate(document, start=1):
            yield _object(value, f"{path}, record {number}")
    else:
        yield _object(document, str(path))


def _table(path: Path, header: list[str] | None, delimiter: str) -> Iterator[Record]:
    # Prompts may exceed the default limit of 128 KiB per field.
    csv.field_size_limit(1 << 28)
    lines = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, strict=True)
    for values in _lines(path, lines):
        if header is None:
            header = values
        elif len(values) != len(header):
            raise MergebenchError(f"{path}, line {lines.line_num}: {len(values)} fields, expected {len(header)} ({', '.join(header)}).")
        else:
            yield Record(dict(zip(header, values, strict=True)), f"{path}, line {lines.line_num}")


def _lines(path: Path, lines: Any) -> Iterator[list[str]]:
    try:
        yield from lines
    except csv.Error as error:
        raise MergebenchError(f"{path}, line {lines.line_num}: not valid CSV ({error}); {_BROKEN}.") from None


def _headerless(path: Path, header: list[str]) -> Iterator[Record]:
    return _table(path, header, ",")


def _csv(path: Path) -> Iterator[Record]:
    return _table(path, None, ",")


def _tsv(path: Path) -> Iterator[Record]:
    return _table(path, None, "\t")


def _sgm(path: Path) -> Iterator[Record]:
    document = ""
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if opening := re.search(r'<doc\b[^>]*\bdocid="([^"]*)"', line):
            document = opening[1]
        if segment := re.search(r'<seg id="([^"]*)">(.*)</seg>', line):
            values = {"document": document, "segment": segment[1], "text": segment[2].strip()}
            yield Record(values, f"{path}, line {number}")


def _conllu(path: Path) -> Iterator[Record]:
    comments: dict[str, str] = {}
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if comment := re.match(r"# (newdoc id|sent_id|text) = (.*)", line):
            comments[comment[1]] = comment[2].strip()
            if comment[1] == "text":
                missing = {"newdoc id", "sent_id"} - comments.keys()
                if missing:
                    raise MergebenchError(f"{path}, line {number}: no `# {missing.pop()} =` line before this text.")
                values = {"document": comments["newdoc id"], "segment": comments["sent_id"], "text": comments["text"]}
                yield Record(values, f"{path}, line {number}")


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise MergebenchError(f"{path} is not a complete Parquet file ({error}); {_BROKEN}.") from None
    for number, values in enumerate(table.to_pylist(), start=1):
        yield Record(values, f"{path}, row {number}")


_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".sgm": _sgm,
    ".conllu": _conllu,
    ".parquet": _parquet,
}
