"""The warm process that runs programs: it imports numpy once and forks a confined child for each.

Requests and answers are JSON lines on standard input and output. It imports the standard library alone, besides numpy,
which the tests of MBPP+ and HumanEval+ use.
"""

import contextlib
import json
import os
import random
import resource
import secrets
import select
import shutil
import signal
import sys
import tempfile
import time
from typing import Any

from mergebench.evaluation.code import confinement

ERROR_BYTES = 400


def main() -> None:
    """Say which protections work, then serve requests until standard input ends."""
    confinement.die_with_parent()
    with contextlib.suppress(ImportError):
        import numpy  # noqa: F401  (children inherit it)
    root = tempfile.mkdtemp(prefix="mergebench-programs-")
    try:
        means = confinement.detect(root)
        _answer({"namespace": means.namespace, "landlock": means.landlock, "seccomp": means.seccomp})
        for line in sys.stdin:
            _answer(run(json.loads(line), root, means))
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _answer(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def run(request: dict[str, Any], root: str, means: confinement.Means) -> dict[str, Any]:
    """Run one program; it passes only if the nonce comes back through its private pipe in time.

    Args:
        request: `program` (source), `timeout` (wall seconds), `memory_bytes`.
        root: folder below which the program gets a folder of its own.
        means: protections to apply.

    Returns:
        `passed`, `reason` (empty if passed) and `seconds`.
    """
    nonce = secrets.token_hex(16).encode()
    folder = tempfile.mkdtemp(dir=root)
    nonce_read, nonce_write = os.pipe()
    result_read, result_write = os.pipe()
    os.write(nonce_write, nonce)
    os.close(nonce_write)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(request, folder, means, nonce_read, result_write)
    os.close(nonce_read)
    os.close(result_write)
    received, in_time = _receive(result_read, started + request["timeout"])
    os.close(result_read)
    _kill(child)
    shutil.rmtree(folder, ignore_errors=True)
    seconds = round(time.monotonic() - started, 3)
    if received == nonce:
        return {"passed": True, "reason": "", "seconds": seconds}
    if not in_time:
        return {"passed": False, "reason": f"timed out after {request['timeout']:g} s", "seconds": seconds}
    text = received.decode("utf-8", "replace")
    reason = text[1:] if text.startswith("!") else "ended without finishing its tests"
    return {"passed": False, "reason": reason, "seconds": seconds}


def _receive(pipe: int, deadline: float) -> tuple[bytes, bool]:
    """What comes through the pipe until it closes or the time is up, at most a few hundred bytes."""
    received = b""
    while len(received) <= ERROR_BYTES:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return received, False
        block = os.read(pipe, ERROR_BYTES)
        if not block:
            break
        received += block
    return received, True


def _kill(child: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    os.waitpid(child, 0)


def _child(request: dict[str, Any], folder: str, means: confinement.Means, nonce_from: int, result_to: int) -> None:
    """Never returns. The pipes move to random descriptors and everything else that is open is closed."""
    try:
        os.setsid()
        confinement.die_with_parent()
        source, target = random.SystemRandom().sample(range(100, 900), 2)
        os.dup2(nonce_from, source)
        os.dup2(result_to, target)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        _close_all_but(source, target)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(HOME=folder, TMPDIR=folder, OPENBLAS_NUM_THREADS="1")
        tempfile.tempdir = folder
        limits = confinement.Limits(cpu_seconds=int(request["timeout"]) + 1, memory_bytes=int(request["memory_bytes"]))
        confinement.confine(folder, sorted({sys.prefix, sys.base_prefix, sys.exec_prefix}), limits, means)
        _execute(request["program"])
    except BaseException as error:
        _report(target, error)
        os._exit(1)
    os.write(target, os.read(source, 64))
    os._exit(0)


def _execute(program: str) -> None:
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})


def _report(target: int, error: BaseException) -> None:
    try:
        kind = "MemoryError" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
        os.write(target, b"!" + kind.encode("utf-8", "replace")[: ERROR_BYTES - 1])
    except BaseException:
        os._exit(1)


def _close_all_but(*kept: int) -> None:
    start = 3
    for descriptor in sorted(kept):
        os.closerange(start, descriptor)
        start = descriptor + 1
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.closerange(start, min(soft, 4096) if soft > 0 else 4096)
