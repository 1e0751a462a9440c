"""Which items ask about the same thing."""

import json
from pathlib import Path

import pytest
import yaml

from mergebench.data.schema import REPEATED, SCHEMAS
from mergebench.evaluation.clusters import cluster_of
from mergebench.evaluation.harness import evaluate
from mergebench.evaluation.settings import TASKS, BenchmarkSetting
from tests.stubs import GoldModel

BY_CONTEXT = {"cluster_by": "context"}
TASK_FILES = sorted(path for path in TASKS.glob("*.yaml") if not path.name.startswith("_"))


def test_rows_of_one_text_have_one_cluster() -> None:
    first, same, other = (cluster_of({"context": text, "question": text * k}, BY_CONTEXT) for k, text in enumerate(("a", "a", "b")))
    assert first == same != other


def test_several_fields_must_all_be_equal() -> None:
    metadata = {"cluster_by": ["question", "choices"]}
    rows = [{"question": "q", "choices": choices} for choices in (["a", "b"], ["a", "b"], ["b", "a"])]
    one, two, three = (cluster_of(row, metadata) for row in rows)
    assert one == two != three


@pytest.mark.parametrize(("row", "metadata"), [({"context": "a"}, {}), ({}, BY_CONTEXT), ({"context": ""}, BY_CONTEXT)])
def test_what_is_not_known_stands_for_itself(row: dict, metadata: dict) -> None:
    assert cluster_of(row, metadata) == ""


def test_the_text_cannot_be_read_off() -> None:
    assert "secret" not in cluster_of({"context": "secret"}, BY_CONTEXT)


@pytest.mark.parametrize("path", TASK_FILES, ids=lambda path: path.stem)
def test_tasks_name_fields_that_rows_have(path: Path) -> None:
    text = "".join(line for line in path.read_text().splitlines(keepends=True) if "!function" not in line)
    names = yaml.safe_load(text)["metadata"].get("cluster_by", [])
    known = {*SCHEMAS[path.stem], REPEATED.get(path.stem)}
    assert {names} <= known if isinstance(names, str) else set(names) <= known


def clusters(benchmark: str, written: list[dict], folder: Path) -> list[str]:
    """The clusters in the items of a score of these rows."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": str(number), **row}) + "\n" for number, row in enumerate(written)))
    return list(evaluate(GoldModel(), [BenchmarkSetting(benchmark)], {benchmark: path})[benchmark].items["cluster"])


def test_questions_of_one_paragraph_share_a_cluster(tmp_path: Path) -> None:
    written = [{"title": "t", "context": text, "question": f"q{k}", "answers": ["a"]} for k, text in enumerate(("one", "one", "two"))]
    first, same, other = clusters("squadv2", written, tmp_path)
    assert first == same != other


def test_prompts_that_are_judged_share_one_by_their_focus(tmp_path: Path) -> None:
    written = [{"prompt": f"p{k}", "type": "homonyms", "safe": True, "focus": focus} for k, focus in enumerate(("kill", "kill", "beat"))]
    first, same, other = clusters("xstest", written, tmp_path)
    assert first == same != other


def test_rows_from_before_have_none(tmp_path: Path) -> None:
    written = [{"language": "fr", "context": "c", "choices": ["a", "b", "c", "d"], "answer": 0}]
    assert clusters("m_hellaswag", written, tmp_path) == [""]
