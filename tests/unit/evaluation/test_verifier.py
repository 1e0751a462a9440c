"""math_verify in a process of its own: same verdicts, and nothing that it is asked harms who asks."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mergebench.evaluation.verifier import Verifier, verdict


@pytest.fixture(scope="module")
def verifier():
    made = Verifier()
    yield made
    made.close()


@pytest.mark.parametrize(("gold", "given"), [("$4$", "$4.0$"), ("$x+1$", r"\\boxed{1+x}"), ("$4$", "$5$"), ("", ""), ("$4$", "\x00\ud800")])
def test_verdicts_are_math_verifys(verifier, gold, given):
    assert verifier.equal(gold, given) is verdict(gold, given)


def test_a_killed_process_is_replaced(verifier):
    assert verifier.equal("$4$", "$4$")
    verifier._process.kill()
    verifier._process.wait()
    assert verifier.equal("$4$", "$4$")


def test_a_process_that_hangs_costs_its_patience_only(verifier):
    slow = Verifier(patience=0.2)
    assert verifier.equal("$4$", "$4$")
    slow._process, verifier._process = verifier._process, None
    os.kill(slow._process.pid, signal.SIGSTOP)
    assert slow.equal("$4$", "$4$") is False
    assert slow._process is None
    slow.patience = 60.0
    assert slow.equal("$4$", "$4$")
    slow.close()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a process dies with its parent on Linux only")
def test_no_process_outlives_a_killed_parent():
    program = (
        "from mergebench.evaluation.verifier import Verifier; import os, signal; v = Verifier(); v.equal('$4$', '$4$');"
        "print(v._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    child = int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stdout)
    for _ in range(100):
        if not alive(child):
            return
        time.sleep(0.1)
    pytest.fail(f"process {child} is still there")
