"""HumanEval+ and MBPP+ as published: every reference solution passes its tests across two processes, and no wrong one does."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from mergebench.artifacts import Job, execute
from mergebench.data import prepare
from mergebench.evaluation.code import examiner, programs, sandbox
from mergebench.evaluation.code.verdicts import Verdict

pytestmark = pytest.mark.real

SOLUTION = {"humanevalplus": "canonical_solution", "mbppplus": "code"}
ROWS = {"humanevalplus": 164, "mbppplus": 378}
# Mbpp/255 compares 1.7 million tuples of 77 words: half a minute of a quiet core, of which its own work is five seconds.
SECONDS = 500.0

Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    root = os.environ.get("MERGEBENCH_REAL_DATA", "")
    if not root or not Path(root).is_dir():
        pytest.skip("MERGEBENCH_REAL_DATA does not name a folder with the benchmarks' real files")
    folder = tmp_path_factory.mktemp("programs")
    found = {}
    for name in SOLUTION:
        outputs = {"manifest": folder / name / "manifest.json", "rows": folder / name / "rows.jsonl"}
        spec = {"dataset": name, "source": "local", "root": root, "limit": None, "seed": 0}
        execute(prepare, Job("prepare", spec, {}, outputs, folder / "state"))
        found[name] = [json.loads(line) for line in outputs["rows"].read_text(encoding="utf-8").splitlines()]
    return found


def verdicts(benchmark: str, rows: list[Row], answers: list[str]) -> dict[str, Verdict]:
    tasks = [sandbox.Task(**programs.prepare(benchmark, row, [answer])[0]) for row, answer in zip(rows, answers, strict=True)]
    found, _ = sandbox.run(tasks, timeout_seconds=SECONDS, workers=2, allow_weak=True)
    return {row["id"]: verdict for row, verdict in zip(rows, found, strict=True)}


def failed(found: dict[str, Verdict]) -> dict[str, str]:
    return {name: verdict.reason for name, verdict in found.items() if not verdict.passed}


@pytest.mark.parametrize("benchmark", SOLUTION)
def test_every_reference_solution_passes(benchmark: str, rows: dict[str, list[Row]]) -> None:
    assert len(rows[benchmark]) == ROWS[benchmark]
    assert failed(verdicts(benchmark, rows[benchmark], [row[SOLUTION[benchmark]] for row in rows[benchmark]])) == {}


@pytest.mark.parametrize("benchmark", SOLUTION)
@pytest.mark.parametrize("value", ["None", "0", "[]", "''", "True", "args[0] if args else None", "object()", "iter(())"])
def test_no_program_that_ignores_its_task_passes(benchmark: str, value: str, rows: dict[str, list[Row]]) -> None:
    """Each answers every tenth problem with the same value; none of those is solved by it."""
    chosen = rows[benchmark][::10]
    answers = [f"def {row.get('entry_point') or programs.entry_name(row)}(*args):\n    return {value}" for row in chosen]
    passed = {name for name, verdict in verdicts(benchmark, chosen, answers).items() if verdict.passed}
    assert passed == set()


@pytest.mark.parametrize("benchmark", SOLUTION)
def test_every_test_asserts_and_uses_one_name_of_the_program(benchmark: str, rows: dict[str, list[Row]]) -> None:
    for row in rows[benchmark]:
        program = programs.prepare(benchmark, row, [""])[0]
        assert re.search(r"^ *assert ", program["tests"], re.MULTILINE), row["id"]
        assert {*examiner.wanted(program["tests"]), program["entry"]} == {program["entry"]}, row["id"]


@pytest.mark.parametrize("benchmark", SOLUTION)
def test_answers_in_fences_and_with_chat_are_found(benchmark: str, rows: dict[str, list[Row]]) -> None:
    chosen = rows[benchmark][3::20]
    asked = [row["prompt"] if benchmark == "humanevalplus" else "" for row in chosen]
    codes = [prompt + row[SOLUTION[benchmark]] for prompt, row in zip(asked, chosen, strict=True)]
    texts = [f"Here is the solution:\n```python\n{code}\n```\nIt works." for code in codes]
    assert failed(verdicts(benchmark, chosen, texts)) == {}
