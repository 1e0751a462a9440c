"""Programs and their tests, each in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mergebench.errors import MergebenchError
from mergebench.evaluation.code import sandbox, server, tiers
from mergebench.evaluation.code.sandbox import Task
from mergebench.evaluation.code.verdicts import Store, Verdict

PASSING = {
    "arithmetic": ("def f(x): return x + 1", "assert f(1) == 2"),
    "own folder": ("def f():\n    open('mine', 'w').write('x')\n    return open('mine').read()", "assert f() == 'x'"),
    "libraries": ("import collections, decimal, heapq, json, math, re\ndef f(): return math.gcd(4, 6)", "assert f() == 2"),
    "numpy": ("import numpy as np\ndef f(n): return np.arange(n)", "import numpy as np\nassert np.allclose(f(3), [0, 1, 2])"),
    "threads": ("import threading\ndef f():\n    t = threading.Thread(target=len, args=('',))\n    t.start()\n    t.join()", "assert f() is None"),  # noqa: E501
    "much output": ("def f():\n    print('x' * 1000000)\n    return 1", "assert f() == 1"),
    "state": ("seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)", "assert [f(7), f(7)] == [1, 2]"),
    "argument changed": ("def f(x):\n    x.sort()", "x = [3, 1, 2]\nf(x)\nassert x == [1, 2, 3]"),
    "dict changed": ("def f(x):\n    x.pop('a')", "x = {'a': 1, 'b': 2}\nassert f(x) is None and x == {'b': 2}"),
    "array changed": ("def f(x):\n    x[0] = 9", "import numpy as np\nx = np.zeros(2)\nf(x)\nassert x[0] == 9"),
    "generator": ("def f(n):\n    yield from range(n)", "assert list(f(3)) == [0, 1, 2]"),
    "generator without end": ("import itertools\ndef f(): return itertools.count()", "g = f()\nassert [next(g), next(g)] == [0, 1]"),
    "closure": ("def f(n):\n    def g(x): return x + n\n    return g", "assert f(2)(3) == 5"),
    "keyword": ("def f(*, a): return a", "assert f(a=3) == 3"),
    "constant": ("limit = (1, 2)", "assert limit == (1, 2)"),
    "exception": ("def f(): raise KeyError('x')", "try:\n    f()\nexcept LookupError:\n    pass\nelse:\n    raise AssertionError"),
    "own exception": ("class E(ValueError): pass\ndef f(): raise E", "try:\n    f()\nexcept ValueError:\n    pass"),
    "helper": ("def g(x): return 2 * x\ndef f(x): return g(x)", "assert f(2) == 4"),
    "dataclass": ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(): return P(1).x", "assert f() == 1"),
    "name of a built-in": ("def sum(a, b): return a + b", "assert sum(1, 2) == 3", "sum"),
    "order of sets": ("def f(): return list({'a', 'b', 'c', 'd'})", "assert f() == f()"),
}  # fmt: skip
FAILING = {
    "wrong": ("def f(x): return x", "assert f(1) == 2", "AssertionError: "),
    "error": ("def f(x): return 1 / 0", "f(1)", "ZeroDivisionError: division by zero"),
    "no function": ("x = 1", "assert f(1) == 2", "NameError: name 'f' is not defined"),
    "tests that never use it": ("def f(): pass", "assert True", "its tests never used it"),
    "tests that are no Python": ("def f(): pass", "assert f(", "the tests are not valid Python"),
    "an object": ("def f(): return object()", "assert f() == 1", "AssertionError: "),
    "too many arguments": ("def f(): pass", "f(len)", "what it answered is no value: the tests give the program a builtin_function_or_method, which cannot be sent to it"),  # noqa: E501
}  # fmt: skip


@pytest.fixture(scope="module")
def verdicts():
    tasks = {name: Task(*parts) for name, parts in PASSING.items()} | {name: Task(*parts[:2]) for name, parts in FAILING.items()}
    found, _ = sandbox.run(list(tasks.values()), timeout_seconds=60, workers=2, allow_weak=True)
    return dict(zip(tasks, found, strict=True))


@pytest.mark.parametrize("name", PASSING)
def test_right_programs_pass(name, verdicts):
    assert verdicts[name] == Verdict(True, "")


@pytest.mark.parametrize("name", FAILING)
def test_wrong_programs_fail_with_a_reason(name, verdicts):
    assert verdicts[name] == Verdict(False, FAILING[name][2])


def test_a_program_ends_with_its_time():
    started = time.monotonic()
    found, _ = sandbox.run(
        [Task("while True: pass", "f()"), Task("def f(): pass", "while True: f()")], timeout_seconds=0.5, allow_weak=True
    )
    assert {verdict.reason for verdict in found} == {"timed out after 0.5 s"}
    assert time.monotonic() - started < 60


def test_equal_tasks_run_once_and_keep_their_order():
    seen = []
    tasks = [Task("def f(): return 1", f"assert f() == {n}") for n in (1, 2, 1)]
    found, _ = sandbox.run(tasks, timeout_seconds=60, allow_weak=True, progress=lambda *step: seen.append(step))
    assert [verdict.passed for verdict in found] == [True, False, True]
    assert seen == [(1, 2, "programs run"), (2, 2, "programs run")]


def test_no_tasks_need_no_server():
    assert sandbox.run([], timeout_seconds=1, allow_weak=True)[0] == []


def test_a_dead_server_is_replaced_and_the_program_tried_again(monkeypatch):
    original = sandbox.Pair.run
    calls = []

    def flaky(self, task, *limits):
        calls.append(task)
        if len(calls) == 1:
            self.candidate.process.kill()
        return original(self, task, *limits)

    monkeypatch.setattr(sandbox.Pair, "run", flaky)
    found, _ = sandbox.run([Task("def f(): return 1", "assert f() == 1")], timeout_seconds=60, allow_weak=True)
    assert (found[0].passed, len(calls)) == (True, 2)


def test_a_program_that_brings_two_servers_down_fails(monkeypatch):
    monkeypatch.setattr(sandbox.Pair, "run", lambda *_: None)
    found, _ = sandbox.run([Task("", "")], timeout_seconds=60, allow_weak=True)
    assert found == [Verdict(False, "the program brought its sandbox down")]


def test_weak_confinement_must_be_allowed():
    with pytest.raises(MergebenchError, match="allow_weak_sandbox"):
        sandbox.run([Task("", "")], timeout_seconds=5, tier="rlimits")


def test_an_unknown_tier_is_named():
    with pytest.raises(MergebenchError, match="did you mean 'landlock'"):
        sandbox.detect("landlok")


def test_a_tier_that_is_not_there_is_not_replaced_by_a_weaker_one(monkeypatch):
    monkeypatch.setattr(tiers, "candidates", lambda: [tiers.Means("rlimits", 0, False)])
    sandbox._detect.cache_clear()
    with pytest.raises(MergebenchError, match="does not work on this machine"):
        sandbox.detect("bubblewrap")
    sandbox._detect.cache_clear()


def test_a_tier_that_confines_nothing_is_passed_over(monkeypatch, tmp_path):
    """A bubblewrap that starts its command and does nothing else, on a kernel without Landlock and seccomp."""
    fake = tmp_path / "bwrap"
    words = "at = sys.argv.index('/tmp', len(sys.argv) - 7)\nos.execv(sys.argv[at + 1], sys.argv[at + 1 :])\n"
    fake.write_text(f"#!{sys.executable} -I\nimport os, sys\n{words}")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(tiers.confinement, "landlock_version", lambda: 0)
    sandbox._detect.cache_clear()
    assert sandbox.detect().tier == "rlimits"
    with pytest.raises(MergebenchError, match="within reach"):
        sandbox.detect("bubblewrap")
    sandbox._detect.cache_clear()


def test_verdicts_are_kept_and_torn_lines_passed_over(tmp_path):
    path = tmp_path / "state" / "verdicts.jsonl"
    store = Store(path)
    store.add("a", Verdict(True, ""))
    path.write_bytes(b'\xff\n[]\n{"key": 1}\n{"key": "c", "passed": "yes", "reason": ""}\n' + path.read_bytes() + b'{"key": "b", "pas')
    again = Store(path)
    assert again.known == {"a": Verdict(True, "")}
    again.add("b", Verdict(False, "\ud800"))
    assert Store(path).known == {"a": Verdict(True, ""), "b": Verdict(False, "\ud800")}


def test_a_kept_verdict_is_not_found_again(tmp_path, monkeypatch):
    tasks = [Task("def f(): return 1", "assert f() == 1")]
    path = tmp_path / "verdicts.jsonl"
    first = sandbox.run(tasks, timeout_seconds=60, allow_weak=True, store=path)
    monkeypatch.setattr(sandbox, "Pair", lambda means: pytest.fail("a server was started"))
    assert sandbox.run(tasks, timeout_seconds=60, allow_weak=True, store=path) == first
    with pytest.raises(pytest.fail.Exception):
        sandbox.run(tasks, timeout_seconds=61, allow_weak=True, store=path)


def test_a_killed_job_keeps_what_it_finished(tmp_path):
    """SIGKILL while programs run: the servers end too, and what was found is not run again."""
    path = tmp_path / "verdicts.jsonl"
    code = (
        "import sys; from pathlib import Path; from mergebench.evaluation.code import sandbox\n"
        "tasks = [sandbox.Task(f'import time\\ndef f(): time.sleep({n}); return 1', 'assert f() == 1') for n in (0, 0.001, 3600)]\n"
        "print('started', flush=True)\n"
        "sandbox.run(tasks, timeout_seconds=3600, allow_weak=True, store=Path(sys.argv[1]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(sandbox.__file__).parents[3]), "TMPDIR": str(tmp_path)}
    job = subprocess.Popen([sys.executable, "-c", code, str(path)], env=environment, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (path.is_file() and path.read_bytes().count(b"\n") == 2):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    servers = _descendants(job.pid)
    job.send_signal(signal.SIGKILL)
    job.wait()
    while any(Path(f"/proc/{pid}").exists() and "Z" not in _state(pid) for pid in servers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [json.loads(line)["passed"] for line in path.read_text().splitlines()] == [True, True]
    assert len(servers) >= 2
    assert not list(tmp_path.glob("mergebench-programs-*"))


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def _descendants(pid):
    found = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    return found + [deeper for child in found for deeper in _descendants(child)]


def test_a_hostile_folder_is_emptied(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    folder = tmp_path / "folder"
    (folder / "a/b/c").mkdir(parents=True)
    (folder / "a/b/file").touch()
    (folder / "link").symlink_to(outside)
    (folder / "a/b/c/link").symlink_to(outside)
    (folder / "a/b").chmod(0)
    server.remove_below(str(folder))
    assert list(folder.iterdir()) == []
    assert list(outside.iterdir()) == [outside / "kept"]
