"""Hostile programs: none passes, none escapes, none outlives its time."""

import os
import sys
import time
from pathlib import Path

import pytest

from mergebench.errors import MergebenchError
from mergebench.evaluation.code import confinement, sandbox

HARMLESS = {
    "arithmetic": "assert 1 + 1 == 2",
    "numpy": "import numpy as np\nassert np.allclose([1.0], [1.0])",
    "library": "import collections, decimal, heapq, json, math, re\nassert math.gcd(4, 6) == 2",
    "own folder": "open('mine', 'w').write('x')\nassert open('mine').read() == 'x'",
    "threads": "import threading\nt = threading.Thread(target=len, args=('',))\nt.start()\nt.join()",
    "prints": "print('x' * 1000)\nassert True",
}
FAILING = {
    "assertion": "assert False",
    "syntax": "def f(:",
    "exit at once": "import os\nos._exit(0)",
    "system exit": "import sys\nsys.exit(0)",
    "says passed": "print('passed')\nraise ValueError('no')",
    "writes to every descriptor": "import os\nfor fd in range(3):\n    os.write(fd, b'passed')\nos._exit(0)",
    "crash": "import ctypes\nctypes.string_at(0)",
    "memory bomb": "x = bytearray(1 << 40)",
    "large file": "f = open('big', 'wb')\nfor _ in range(64):\n    f.write(b'x' * (1 << 20))",
    "recursion": "def f():\n    return f()\nf()",
}
ENDLESS = {"loop": "while True:\n    pass", "output": "while True:\n    print('x' * 10000)"}
NETWORK = {
    "tcp": "import socket\nsocket.create_connection(('127.0.0.1', 9), 1)",
    "udp": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))\nassert True",
}
FILES = {
    "password file": "open('/etc/passwd').read()",
    "keys": "import os\nos.listdir(os.path.expanduser('~root/.ssh') if os.path.exists(os.path.expanduser('~root/.ssh')) else '/root')",
    "temporary folder": "open('/tmp/escaped-from-sandbox', 'w').write('x')",
    "installation": "import sys\nopen(sys.prefix + '/escaped', 'w')",
}
PROCESSES = {
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "shell": "import subprocess\nsubprocess.run(['true'], check=True)",
    "kill the server": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
}


def run(programs, **settings):
    values = {"timeout_seconds": 5.0, "memory_bytes": 2 << 30, "allow_weak": True, **settings}
    verdicts, facts = sandbox.run(list(programs.values()), **values)
    return dict(zip(programs, verdicts, strict=True)), facts


@pytest.fixture(scope="module")
def means():
    server = sandbox.Server()
    server.close()
    return server.means


def test_harmless_programs_pass():
    verdicts, _ = run(HARMLESS)
    assert {name: verdict.reason for name, verdict in verdicts.items() if not verdict.passed} == {}


def test_failing_and_cheating_programs_do_not_pass():
    verdicts, _ = run(FAILING)
    assert [name for name, verdict in verdicts.items() if verdict.passed] == []
    assert verdicts["exit at once"].reason == "ended without finishing its tests"
    assert verdicts["memory bomb"].reason == "MemoryError"


def test_endless_programs_end_in_time():
    started = time.monotonic()
    verdicts, _ = run(ENDLESS, timeout_seconds=0.5, workers=2)
    assert time.monotonic() - started < 10
    assert all(verdict.reason == "timed out after 0.5 s" for verdict in verdicts.values())


def test_network_is_out_of_reach(means):
    if means.network == "open":
        pytest.skip("neither user namespaces nor seccomp work on this machine")
    verdicts, facts = run(NETWORK)
    assert facts["network"] == means.network
    assert not any(verdict.passed for verdict in verdicts.values())


def test_foreign_files_are_out_of_reach(means):
    if not means.landlock:
        pytest.skip("this kernel has no Landlock")
    verdicts, _ = run(FILES)
    assert not any(verdict.passed for verdict in verdicts.values())
    assert not Path("/tmp/escaped-from-sandbox").exists()


def test_processes_and_signals_are_refused(means):
    if not means.seccomp:
        pytest.skip("no seccomp filter on this machine")
    verdicts, _ = run({**PROCESSES, "next one": "assert True"})
    assert {name for name, verdict in verdicts.items() if verdict.passed} == {"next one"}


def test_environment_is_empty(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    verdicts, _ = run({"token": "import os\nassert not any('TOKEN' in k or 'PATH' in k for k in os.environ), os.environ"})
    assert verdicts["token"].passed, verdicts["token"].reason


def test_folders_are_fresh_and_removed():
    show = "import os\nassert os.listdir('.') == []\nopen('left', 'w')\nraise ValueError(os.getcwd())"
    verdicts, _ = run({"first": show, "second": show + "\n"})
    paths = [verdict.reason.removeprefix("ValueError: ") for verdict in verdicts.values()]
    assert len(set(paths)) == 2
    assert not any(os.path.exists(path) for path in paths)


def test_equal_programs_run_once_and_keep_their_order():
    verdicts, _ = sandbox.run(["assert True", "assert False", "assert True"], timeout_seconds=5, allow_weak=True, workers=2)
    assert [verdict.passed for verdict in verdicts] == [True, False, True]


def test_a_dead_server_is_replaced(monkeypatch):
    original = sandbox.Server.run
    calls = []

    def flaky(self, *arguments):
        calls.append(arguments)
        return None if len(calls) == 1 else original(self, *arguments)

    monkeypatch.setattr(sandbox.Server, "run", flaky)
    verdicts, _ = run({"first": "assert 1", "second": "assert 2"})
    assert verdicts["first"].reason == "the program brought its sandbox server down"
    assert verdicts["second"].passed


def test_weak_confinement_must_be_allowed(monkeypatch):
    monkeypatch.setattr(confinement.Means, "strong", property(lambda self: False))
    with pytest.raises(MergebenchError, match="allow_weak_sandbox"):
        sandbox.run(["assert True"], timeout_seconds=5)
    _, facts = sandbox.run(["assert True"], timeout_seconds=5, allow_weak=True)
    assert facts["tier"] == "weak"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_confinement_holds_for_an_ordinary_user(tmp_path):
    """The same protections, detected after giving up root."""
    code = (
        "import os, sys, tempfile; sys.path.insert(0, sys.argv[1])\n"
        "from mergebench.evaluation.code import confinement\n"
        "folder = tempfile.mkdtemp(); os.chmod(folder, 0o777)\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "means = confinement.detect(folder)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    confinement.confine(folder, [sys.prefix], confinement.Limits(5, 2 << 30), means)\n"
        "    try:\n"
        "        open('/etc/passwd')\n"
        "    except OSError:\n"
        "        os._exit(0)\n"
        "    os._exit(0 if not means.landlock else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), means)"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-I", "-c", code, str(sandbox.ROOT)], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("0 Means("), done.stderr
    assert "seccomp=True" in done.stdout or sys.platform != "linux"
