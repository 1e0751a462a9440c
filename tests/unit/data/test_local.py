"""The data folder: what is there, what is not, and what is wrong with it."""

import json
from pathlib import Path

import pytest

from mergebench import catalogue
from mergebench.artifacts import sha256_file
from mergebench.data.schema import check_rows
from mergebench.data.sources import local
from mergebench.errors import MergebenchError


def load(dataset: str, root: Path) -> local.Loaded:
    return local.load(dataset, catalogue.datasets()[dataset], root, seed=0)


def test_every_file_read_is_recorded_with_its_hash(folder: Path) -> None:
    loaded = load("pubmedqa", folder)
    assert loaded.files == {name: sha256_file(folder / name) for name in ("pubmedqa/ori_pqal.json", "pubmedqa/test_ground_truth.json")}


def test_languages_that_are_not_there_are_said_so(folder: Path) -> None:
    assert load("m_arc", folder).notes == ["absent: m_arc/de_test.json", "absent: m_arc/ru_test.json"]


def test_the_first_file_that_exists_is_read(own_folder: Path) -> None:
    validation = own_folder / "m_mmlu/fr_val.json"
    (own_folder / "m_mmlu/fr_test.json").write_text(json.dumps(json.loads(validation.read_text())[:2]))
    loaded = load("m_mmlu", own_folder)
    assert "m_mmlu/fr_test.json" in loaded.files
    assert "m_mmlu/fr_val.json" not in loaded.files
    assert sum(row["language"] == "fr" for row in loaded.rows) == 2


@pytest.mark.parametrize(
    ("dataset", "file"),
    [
        ("gsm8k", "gsm8k/test.jsonl"),
        ("train_safety", "wildguardmix/train/wildguard_train.parquet"),
        ("wmt14", "wmt14_fr-en/newstest2014-fren-ref.en.sgm"),
        ("mmlu", "mmlu/test/*_test.csv"),
        ("m_hellaswag", "m_hellaswag/fr_validation.json"),
    ],
)
def test_an_absent_dataset_names_the_file_that_it_wants(dataset: str, file: str, own_folder: Path) -> None:
    for path in own_folder.glob(file):
        path.unlink()
    with pytest.raises(MergebenchError) as raised:
        load(dataset, own_folder)
    message = str(raised.value)
    assert message.startswith(f"{dataset} (")
    assert file in message
    assert f"set data.sources.{dataset} to hub or tiny" in message


def test_an_absent_data_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MergebenchError, match=r"The data folder .*nowhere does not exist; set data\.root"):
        load("gsm8k", tmp_path / "nowhere")


def test_wrong_columns_name_the_file_and_the_line(own_folder: Path) -> None:
    (own_folder / "gsm8k/test.jsonl").write_text('{"question": "q", "answer": "#### 1"}\n{"query": "q", "answer": "#### 1"}\n')
    with pytest.raises(MergebenchError, match=r"gsm8k/test\.jsonl, line 2 has no column 'question'; it has 'query', 'answer'"):
        load("gsm8k", own_folder)


def test_an_mmlu_file_with_a_line_cut_short_is_found(own_folder: Path) -> None:
    (own_folder / "mmlu/test/anatomy_test.csv").write_text("q,a,b,c,d,A\nq,a,b,c\n")
    with pytest.raises(MergebenchError, match=r"anatomy_test\.csv, line 2: 4 fields, expected 6"):
        load("mmlu", own_folder)


@pytest.mark.parametrize(
    ("dataset", "file", "content", "message"),
    [
        ("gsm8k", "gsm8k/test.jsonl", '{"question": "q", "answer": 72}', r"test\.jsonl, line 1: 'answer' is a int, expected a text"),
        ("m_mmlu", "m_mmlu/fr_val.json", '[{"id": "1", "instruction": null}]', r"fr_val\.json, record 1: 'instruction' is a NoneType"),
        ("squadv2", "squad_v2/dev-v2.0.json", '{"data": [{"paragraphs": [{"qas": [{}]}]}]}', r"dev-v2\.0\.json is not laid out .*KeyError"),
        ("coqa", "coqa/coqa-dev-v1.0.json", '{"data": [{"questions": "?"}]}', r"coqa-dev-v1\.0\.json is not laid out .*TypeError"),
        (
            "pubmedqa",
            "pubmedqa/test_ground_truth.json",
            '{"99": "yes"}',
            r"test_ground_truth\.json: the question 99 is not in ori_pqal\.json",
        ),
        ("wmt14", "wmt14_fr-en/newstest2014-fren-ref.en.sgm", '<seg id="1">one</seg>', r"the reference has 1 segments, expected 5"),
        (
            "xstest",
            "xstest/xstest_prompts.csv",
            'id,prompt,type\n1,"never closed,homonyms\n',
            r"xstest_prompts\.csv, line \d: not valid CSV",
        ),
    ],
)
def test_content_that_is_not_as_published_is_found(dataset: str, file: str, content: str, message: str, own_folder: Path) -> None:
    (own_folder / file).write_text(content)
    with pytest.raises(MergebenchError, match=message):
        load(dataset, own_folder)


def test_an_id_used_twice_in_a_file_is_found(own_folder: Path) -> None:
    path = own_folder / "m_arc/fr_test.json"
    records = json.loads(path.read_text())
    path.write_text(json.dumps([*records, records[1]]))
    with pytest.raises(MergebenchError, match=r"m_arc: the id 'fr/ARC/1' is used by rows 2, 6"):
        check_rows("m_arc", load("m_arc", own_folder).rows)


def test_everything_that_a_dataset_is_made_from(own_folder: Path) -> None:
    entry = catalogue.datasets()["mmlu"]
    dev = own_folder / "mmlu/dev/anatomy_dev.csv"
    found = local.everything("mmlu", entry, own_folder)
    assert found == sorted([dev, *own_folder.glob("mmlu/test/*_test.csv")])
    dev.unlink()
    assert dev not in local.everything("mmlu", entry, own_folder)
