"""Compare two expressions with math-verify, in a process of its own that is ended when it takes too long.

A model may write any text, and some short ones (``9^{9^9}``, ``(10^8)!``) keep a computer algebra system busy for ever, in code
that no signal interrupts, or fill the memory.
"""

import atexit
import contextlib
import ctypes
import importlib.util
import json
import os
import resource
import select
import signal
import subprocess
import sys
from functools import cache

SECONDS = 5.0  # for one comparison
START_SECONDS = 60.0  # for the process to be ready
MEMORY = 4 << 30  # bytes of address space
PR_SET_PDEATHSIG = 1  # prctl(2)


def same_expression(found: str, expected: str) -> bool:
    """Whether two answers in LaTeX or plain notation are equal as expressions; False where that cannot be told in time."""
    return installed() and _helper().ask(found, expected)


@cache
def installed() -> bool:
    """Whether math-verify is there."""
    return importlib.util.find_spec("math_verify") is not None


@cache
def _helper() -> "Helper":
    helper = Helper()
    atexit.register(helper.stop)
    return helper


class Helper:
    """The process that compares; it is started when it is needed, and again after it was ended."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, found: str, expected: str) -> bool:
        """The answer of the process, or False if none comes in time."""
        process = self._started()
        try:
            assert process.stdin
            process.stdin.write(json.dumps([found, expected]).encode() + b"\n")
            process.stdin.flush()
            answer = self._line(SECONDS)
        except OSError:
            answer = None
        if answer is None:
            self.stop()
        return answer == b"true"

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self.process:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
            self._line(START_SECONDS)
        return self.process

    def _line(self, seconds: float) -> bytes | None:
        assert self.process
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return (self.process.stdout.readline().strip() or None) if ready else None


def main() -> None:
    """Answer pairs of expressions, one JSON list per line, with ``true`` or ``false``."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the libraries print is no answer
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    print("ready", file=answers)
    for line in sys.stdin:
        same = False
        with contextlib.suppress(Exception):
            # The limit is kept from outside, by ending this process.
            a, b = (parse(f"${text}$", parsing_timeout=None) for text in json.loads(line))
            same = bool(a and b and verify(b, a, timeout_seconds=None))
        print(json.dumps(same), file=answers)


if __name__ == "__main__":
    main()
