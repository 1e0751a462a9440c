"""Run model-written programs: a pool of warm servers, and a record of what confines the programs."""

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergebench.errors import MergebenchError
from mergebench.evaluation.code import server
from mergebench.evaluation.code.confinement import Means

ROOT = Path(__file__).resolve().parents[3]
MEMORY_BYTES = 4 << 30
GRACE_SECONDS = 15.0
BOOTSTRAP = f"import sys; sys.path.insert(0, sys.argv[1]); from {server.__name__} import main; main()"


@dataclass(frozen=True)
class Verdict:
    """Whether a program passed its tests, else why not."""

    passed: bool
    reason: str


class Server:
    """One warm server process. It starts with an empty environment: no tokens, no proxies, no user site."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", BOOTSTRAP, str(ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.defpath, "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        greeting = self._read(60.0)
        if greeting is None:
            self.close()
            raise MergebenchError(f"the sandbox server did not start with {sys.executable}; check that Python can fork here.")
        self.means = Means(**greeting)

    def run(self, program: str, timeout: float, memory_bytes: int) -> Verdict | None:
        """Run one program; None if the server died."""
        request = {"program": program, "timeout": timeout, "memory_bytes": memory_bytes}
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        answer = self._read(timeout + GRACE_SECONDS)
        return None if answer is None else Verdict(answer["passed"], answer["reason"])

    def _read(self, seconds: float) -> dict[str, Any] | None:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else b""
        return json.loads(line) if line else None

    def close(self) -> None:
        """End the server; its folder is removed by itself."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def run(
    programs: Sequence[str],
    *,
    timeout_seconds: float,
    workers: int = 1,
    memory_bytes: int = MEMORY_BYTES,
    allow_weak: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[list[Verdict], dict[str, Any]]:
    """Run programs, each with its tests appended, and say which pass.

    Args:
        programs: Python sources; equal ones run once.
        timeout_seconds: wall seconds for each.
        workers: how many run at the same time.
        memory_bytes: address space of each.
        allow_weak: run even where the network or foreign files stay within reach.

    Returns:
        A verdict per program, and what confined them, for the score record.
    """
    distinct = list(dict.fromkeys(programs))
    verdicts: dict[str, Verdict] = {}
    pending = iter(distinct)
    lock = threading.Lock()
    failures: list[BaseException] = []
    first = Server()
    means = first.means
    if not means.strong and not allow_weak:
        first.close()
        raise MergebenchError(
            f"programs written by the model cannot be confined here (network: {means.network}; files: "
            f"{'landlock' if means.landlock else 'open'}). Use a Linux kernel with Landlock and user namespaces or seccomp, or "
            "set evaluation.allow_weak_sandbox to true to run them with resource limits only."
        )

    def work(own: Server) -> None:
        try:
            while True:
                with lock:
                    program = next(pending, None)
                if program is None:
                    return
                verdict = own.run(program, timeout_seconds, memory_bytes)
                if verdict is None:
                    own.close()
                    own = Server()
                    verdict = Verdict(False, "the program brought its sandbox server down")
                with lock:
                    verdicts[program] = verdict
                    if progress is not None:
                        progress(len(verdicts), len(distinct), "programs run")
        except BaseException as error:
            failures.append(error)
        finally:
            own.close()

    count = max(1, min(workers, len(distinct)))
    threads = [threading.Thread(target=work, args=(first if i == 0 else Server(),)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [verdicts[program] for program in programs], facts(means, timeout_seconds, memory_bytes)


def facts(means: Means, timeout_seconds: float, memory_bytes: int) -> dict[str, Any]:
    """The protections in words, for the score record."""
    return {
        "tier": "confined" if means.strong else "weak",
        "network": means.network,
        "files": f"landlock {means.landlock}" if means.landlock else "open",
        "processes": "seccomp" if means.seccomp else "open",
        "timeout_seconds": timeout_seconds,
        "memory_bytes": memory_bytes,
    }
