"""The file of answers: what is written is read, and nothing else is believed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergebench.errors import MergebenchError
from mergebench.evaluation import responses
from mergebench.evaluation.responses import Answers, Response

ANSWERS = Answers(
    {"base": "b", "model": "m", "benchmark": "xstest"},
    (Response("1", 0, "No.", "stop", 2), Response("1", 1, "", "length", 0), Response("2", 0, "Да\n", None, None)),
)


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "m" / "xstest.json"
    responses.write(path, responses.table_of(path), ANSWERS)
    return path


def test_answers_are_read_as_they_were_written(record):
    found = responses.read(record)
    assert found.responses == ANSWERS.responses
    assert ANSWERS.record.items() <= found.record.items()
    assert found.digest == ANSWERS.digest
    assert [[r.sample for r in own] for own in found.by_item().values()] == [[0, 1], [0]]
    assert list(record.parent.glob(".*")) == []


@settings(max_examples=40)
@given(st.lists(st.text(st.characters(codec=None)), min_size=1, max_size=5))
def test_any_text_survives_but_for_what_has_no_utf8(tmp_path_factory, texts):
    record = tmp_path_factory.mktemp("answers") / "x.json"
    answers = Answers({}, tuple(Response(str(i), 0, text) for i, text in enumerate(texts)))
    responses.write(record, responses.table_of(record), answers)
    found = responses.read(record)
    assert [r.text for r in found.responses] == [text.encode("utf-8", "replace").decode() for text in texts]
    assert found.digest == answers.digest


def test_the_digest_tells_items_samples_and_texts_apart():
    variants = [
        (Response("1", 0, "ab"), Response("2", 0, "c")),
        (Response("1", 0, "a"), Response("2", 0, "bc")),
        (Response("1", 0, "ab"), Response("1", 1, "c")),
        (Response("2", 0, "c"), Response("1", 0, "ab")),
    ]
    assert len({Answers({}, given).digest for given in variants}) == len(variants)


def test_the_table_is_compressed(record):
    from pyarrow import parquet

    chunk = parquet.ParquetFile(responses.table_of(record)).metadata.row_group(0).column(2)
    assert chunk.compression == "ZSTD"


def test_an_item_that_is_answered_twice_is_refused(tmp_path):
    twice = Answers({}, (Response("1", 0, "a"), Response("1", 0, "b")))
    with pytest.raises(MergebenchError, match="sample 0 of item '1' was answered twice"):
        responses.write(tmp_path / "x.json", tmp_path / "x.responses.parquet", twice)
    assert list(tmp_path.iterdir()) == []


def swap(record):
    other = record.with_name("other.json")
    responses.write(other, responses.table_of(other), Answers({}, (Response("9", 0, "another"),)))
    responses.table_of(other).rename(responses.table_of(record))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda record: responses.table_of(record).unlink(), "is missing, but .*xstest.json describes it"),
        (lambda record: responses.table_of(record).write_bytes(b"PAR1"), "does not have the SHA-256"),
        (swap, "does not have the SHA-256"),
        (lambda record: record.write_text("{}"), "is not a record of answers"),
        (lambda record: record.write_text("[1]"), "is not a record of answers"),
        (lambda record: record.write_text('{"answers"'), "is not valid JSON"),
    ],
    ids=["no table", "half a table", "another table", "no digest", "no object", "half a record"],
)
def test_damaged_answers_are_refused_with_what_to_do(record, damage, said):
    damage(record)
    with pytest.raises(MergebenchError, match=rf"(?s){said}.*(delete|run again)"):
        responses.read(record)
