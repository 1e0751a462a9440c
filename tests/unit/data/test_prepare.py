"""The prepare stage: outputs and manifest of every kind of dataset from every source."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mergebench import catalogue
from mergebench.artifacts import Job, execute, read_json, sha256_file
from mergebench.data import prepare
from mergebench.data.records import Row, same_text
from mergebench.data.schema import check_rows
from mergebench.data.sources import hub, local
from mergebench.data.sources.loaded import Loaded
from mergebench.errors import MergebenchError

Make = Callable[..., Job]
ROWS = {"manifest": "manifest.json", "rows": "rows.jsonl"}
TRAINING = {"manifest": "manifest.json", "train": "train.jsonl", "calibration": "calibration.jsonl"}


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_benchmarks_rows_and_manifest(job: Make, folder: Path) -> None:
    made = job(ROWS, dataset="m_arc", source="local", root=str(folder), limit=4)
    execute(prepare, made)
    rows, manifest = lines(made.outputs["rows"]), read_json(made.outputs["manifest"])
    check_rows("m_arc", rows)
    assert manifest["rows"] == {"rows": 4}
    assert manifest["source_rows"] == 10
    assert manifest["languages"] == {"es": 2, "fr": 2}
    assert manifest["sha256"] == {"rows": sha256_file(made.outputs["rows"])} == {"rows": manifest["files"]["rows.jsonl"]["sha256"]}
    assert manifest["source_files"] == {f"m_arc/{x}_test.json": sha256_file(folder / f"m_arc/{x}_test.json") for x in ("fr", "es")}
    assert manifest["notes"] == ["absent: m_arc/de_test.json", "absent: m_arc/ru_test.json", "10 of 4677 rows"]


def test_the_same_spec_gives_the_same_bytes(job: Make, folder: Path) -> None:
    digests = set()
    for _ in range(2):
        made = job(ROWS, dataset="pud_prose", source="local", root=str(folder), limit=7)
        execute(prepare, made)
        digests.add((sha256_file(made.outputs["rows"]), sha256_file(made.outputs["manifest"])))
    assert len(digests) == 1


@pytest.mark.parametrize("dataset", sorted(name for name in catalogue.datasets() if name.startswith("train_")))
@pytest.mark.parametrize("source", ["local", "tiny"])
def test_training_and_calibration_rows_are_disjoint_and_in_the_schema(dataset: str, source: str, job: Make, folder: Path) -> None:
    made = job(TRAINING, dataset=dataset, source=source, root=str(folder), rows=30, calibration_rows=2)
    execute(prepare, made)
    train, calibration = lines(made.outputs["train"]), lines(made.outputs["calibration"])
    check_rows(dataset, train)
    check_rows(dataset, calibration)
    assert len(calibration) == 2
    assert not {same_text(r["prompt"]) for r in train} & {same_text(r["prompt"]) for r in calibration}
    assert read_json(made.outputs["manifest"])["rows"] == {"train": len(train), "calibration": 2}


def test_repeated_training_rows_are_left_out(job: Make, folder: Path) -> None:
    made = job(TRAINING, dataset="train_instruction", source="local", root=str(folder), calibration_rows=1)
    payload = prepare.run(made)
    assert payload["source_rows"] == 7
    assert sum(payload["rows"].values()) == 6
    assert "1 repeated rows left out" in payload["notes"]


def test_too_few_rows_for_calibration_are_an_error(job: Make, folder: Path) -> None:
    made = job(TRAINING, dataset="train_coding", source="local", root=str(folder), calibration_rows=5)
    with pytest.raises(MergebenchError, match=r"train_coding has 5 rows, too few to set 5 aside .*; lower data\.calibration_rows"):
        prepare.run(made)


def test_prompts_of_the_test_set_leave_the_surrogate(job: Make, folder: Path) -> None:
    made = job(ROWS, dataset="ifeval_like", source="local", root=str(folder), limit=None)
    payload = prepare.run(made)
    assert payload["rows"] == {"rows": 4}
    assert payload["notes"] == ["1 rows left out whose prompt is in ifeval"]


# Real prose is not part of the tiny world.
@pytest.mark.parametrize("dataset", sorted({n for n in catalogue.datasets() if not n.startswith("train_")} - {"pud_prose"}))
def test_the_tiny_source_makes_every_benchmark(dataset: str, job: Make) -> None:
    made = job(ROWS, dataset=dataset, source="tiny", limit=5)
    assert prepare.run(made)["rows"] == {"rows": 5}
    check_rows(dataset, lines(made.staging("rows")))


def test_the_tiny_source_needs_a_number(job: Make) -> None:
    with pytest.raises(MergebenchError, match="gsm8k: the tiny source generates as many rows as asked for"):
        prepare.run(job(ROWS, dataset="gsm8k", source="tiny", limit=None))


def test_a_complete_download_must_have_the_expected_rows(job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": str(i), "question": "q", "answer": "#### 1"} for i in range(1318)]
    monkeypatch.setattr(hub, "load", lambda *_: Loaded(rows, revisions={"openai/gsm8k": "c" * 40}))
    with pytest.raises(MergebenchError, match="gsm8k has 1318 rows, but the catalogue expects 1319"):
        prepare.run(job(ROWS, dataset="gsm8k", source="hub", limit=20))
    rows.append({"id": "1318", "question": "q", "answer": "#### 1"})
    payload = prepare.run(job(ROWS, dataset="gsm8k", source="hub", limit=20))
    assert payload["revisions"] == {"openai/gsm8k": "c" * 40}
    assert payload["rows"] == {"rows": 20}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"source": "local", "root": None}, r"gsm8k: source local needs data\.root"),
        ({"source": "web"}, r"gsm8k: the source is 'web'; expected hub, local or tiny"),
    ],
)
def test_a_spec_that_names_no_place_is_an_error(spec: dict[str, Any], message: str, job: Make) -> None:
    with pytest.raises(MergebenchError, match=message):
        prepare.run(job(ROWS, dataset="gsm8k", **spec))


def test_a_failed_job_leaves_nothing_behind(job: Make, own_folder: Path) -> None:
    (own_folder / "gsm8k/test.jsonl").write_bytes(b'{"question": "\xff"}\n')
    made = job(ROWS, dataset="gsm8k", source="local", root=str(own_folder))
    with pytest.raises(MergebenchError, match="line 1: a byte that is not UTF-8"):
        execute(prepare, made)
    assert not made.outputs["rows"].parent.exists() or not any(made.outputs["rows"].parent.iterdir())


EXAMPLES = {**ROWS, "examples": "examples.jsonl"}


@pytest.mark.parametrize("dataset", ["mmlu", "mmlu_stem"])
def test_worked_examples_lie_beside_the_rows(job: Make, folder: Path, dataset: str) -> None:
    made = job(EXAMPLES, dataset=dataset, source="local", root=str(folder), limit=3)
    execute(prepare, made)
    examples, manifest = lines(made.outputs["examples"]), read_json(made.outputs["manifest"])
    assert [row["answer"] for row in examples] == [3, 2, 1, 0, 3]
    assert {row["subject"] for row in examples} == {"anatomy"}
    assert examples[0]["choices"] == [" a", "b ", "c", "d"]
    assert manifest["rows"] == {"rows": 3, "examples": 5}
    assert manifest["sha256"]["examples"] == sha256_file(made.outputs["examples"])
    assert manifest["source_files"]["mmlu/dev/anatomy_dev.csv"] == sha256_file(folder / "mmlu/dev/anatomy_dev.csv")


def test_data_without_worked_examples_have_an_empty_file(job: Make, own_folder: Path) -> None:
    (own_folder / "mmlu/dev/anatomy_dev.csv").unlink()
    for dataset, notes in (("gsm8k", []), ("mmlu", ["no worked examples: their files are absent"])):
        made = job(EXAMPLES, dataset=dataset, source="local", root=str(own_folder))
        execute(prepare, made)
        assert made.outputs["examples"].read_text() == ""
        assert [note for note in read_json(made.outputs["manifest"])["notes"] if "examples" in note] == notes


def test_worked_examples_of_the_hub_are_of_the_rows_commit(job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(dataset: str, entry: dict[str, Any], *_: Any) -> Loaded:
        asked.append((dataset, entry["hub"]["parts"]["rows"]["split"], entry["hub"]["parts"]["rows"].get("revision")))
        row = {"id": f"x/{len(asked)}", "question": "q", "choices": ["a", "b", "c", "d"], "answer": 0, "subject": "x"}
        return Loaded([row], revisions={"cais/mmlu": "c0ffee"})

    monkeypatch.setattr(hub, "load", load)
    made = job(EXAMPLES, dataset="mmlu_stem", source="hub", entry={**catalogue.datasets()["mmlu_stem"], "rows": 1})
    execute(prepare, made)
    assert asked == [("mmlu_stem", "test", None), ("mmlu", "dev", "c0ffee")]
    assert [row["id"] for row in lines(made.outputs["examples"])] == ["x/2"]


SUPPORT = {**ROWS, "support": "support"}
MODELS = b"an archive"


def with_support(dataset: str, content: bytes = MODELS) -> dict[str, Any]:
    """A dataset's entry whose sentence models are `content`."""
    entry = catalogue.datasets()[dataset]
    ((name, part),) = entry["support"].items()
    return {**entry, "rows": None, "support": {name: {**part, "sha256": hashlib.sha256(content).hexdigest()}}}


def test_support_is_fetched_from_its_pinned_address(job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def open_url(url: str) -> bytes:
        asked.append(url)
        return MODELS

    row = {"id": "0", "prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    monkeypatch.setattr(hub, "open_url", open_url)
    monkeypatch.setattr(hub, "load", lambda *_: Loaded([row]))
    made = job(SUPPORT, dataset="ifeval", source="hub", entry=with_support("ifeval"))
    execute(prepare, made)
    manifest = read_json(made.outputs["manifest"])
    assert (made.outputs["support"] / "tokenizers/punkt_tab.zip").read_bytes() == MODELS
    assert manifest["files"]["support/tokenizers/punkt_tab.zip"]["sha256"] == hashlib.sha256(MODELS).hexdigest()
    assert list(manifest["source_files"]) == asked
    monkeypatch.setattr(hub, "open_url", lambda _: b"another archive")
    with pytest.raises(MergebenchError, match=r"punkt_tab\.zip has SHA-256 .*, the catalogue expects"):
        execute(prepare, made)
    assert (made.outputs["support"] / "tokenizers/punkt_tab.zip").read_bytes() == MODELS


@pytest.mark.parametrize("dataset", ["ifeval", "ifeval_like"])
def test_support_from_the_data_folder(job: Make, own_folder: Path, dataset: str) -> None:
    made = job(SUPPORT, dataset=dataset, source="local", root=str(own_folder), entry=with_support(dataset))
    execute(prepare, made)
    assert list(made.outputs["support"].iterdir()) == []
    assert [note for note in read_json(made.outputs["manifest"])["notes"] if note.startswith("absent: nltk_data/tokenizers/punkt_tab.zip")]
    archive = own_folder / "nltk_data/tokenizers/punkt_tab.zip"
    assert archive not in local.everything(dataset, with_support(dataset), own_folder)
    archive.parent.mkdir(parents=True)
    archive.write_bytes(MODELS)
    assert archive in local.everything(dataset, with_support(dataset), own_folder)
    execute(prepare, made)
    assert (made.outputs["support"] / "tokenizers/punkt_tab.zip").read_bytes() == MODELS
    assert not [note for note in read_json(made.outputs["manifest"])["notes"] if "punkt" in note]
    archive.write_bytes(MODELS[:-1])
    with pytest.raises(MergebenchError, match=r"nltk_data/tokenizers/punkt_tab\.zip has SHA-256 .*: fetch it again from https://raw\."):
        execute(prepare, made)


@pytest.mark.parametrize(("dataset", "source"), [("gsm8k", "local"), ("ifeval", "tiny")])
def test_what_needs_no_support_gets_an_empty_folder(job: Make, folder: Path, dataset: str, source: str) -> None:
    made = job(SUPPORT, dataset=dataset, source=source, root=str(folder), limit=3)
    execute(prepare, made)
    assert list(made.outputs["support"].rglob("*")) == []
    assert not any("support" in name for name in read_json(made.outputs["manifest"])["files"])


def test_the_address_of_support_names_a_commit() -> None:
    parts = [part for entry in catalogue.datasets().values() for part in entry.get("support", {}).values()]
    assert len(parts) == 2
    assert all(len(part["url"].split("/")[5]) == 40 and len(part["sha256"]) == 64 for part in parts)
