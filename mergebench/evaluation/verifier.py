"""math_verify in a process of its own: an answer that would take for ever to compare, or all memory, costs one time limit and nothing else.

math_verify limits itself by an alarm signal, which only a main thread can receive and which cannot interrupt one long computation
of a large number. Run as a script, this file is the process: it reads one question per line and writes one verdict per line.
"""

import atexit
import contextlib
import io
import json
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

SECONDS = 5
# What a comparison may take in all: parsing both sides, comparing, and starting the process on a busy machine.
PATIENCE = 60.0
MEMORY = 4 << 30


class Verifier:
    """Compares mathematical answers; the process starts with the first question and starts anew when it had to be killed."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._process: subprocess.Popen[str] | None = None
        atexit.register(self.close)

    def equal(self, gold: str, given: str) -> bool:
        """Whether math_verify finds the same answer in both texts, as ``verify(parse(gold), parse(given))``; False if it cannot tell."""
        process = self._running()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps([gold, given]) + "\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], self.patience)
            line = process.stdout.readline() if ready else ""
        except OSError:
            line = ""
        if not line:
            self.close()
            return False
        return bool(json.loads(line))

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None or self._process.poll() is not None:
            # Without -P this file's folder would be on the path, where modules have the names of others.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).resolve())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            self._process = None


def verdict(gold: str, given: str) -> bool:
    """One comparison, in this process."""
    from math_verify import parse, verify

    return bool(verify(parse(gold, parsing_timeout=SECONDS), parse(given, parsing_timeout=SECONDS), timeout_seconds=SECONDS))


def _confine() -> None:
    """Die with the parent, and refuse memory beyond a limit."""
    import ctypes
    import resource
    import signal

    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, on Linux


def _serve(answers: Any) -> None:
    for line in sys.stdin:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                result = verdict(*json.loads(line))
        except (Exception, RecursionError, MemoryError):
            result = False
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    _confine()
    _serve(sys.stdout)
