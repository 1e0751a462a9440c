"""Run model-written programs against their tests: pairs of warm servers, one for each side, and what confines them.

Of each pair, one server runs the model's program and the other its tests; they talk through a channel that this process makes
for every program (`server`, `wire`). This process runs neither, and believes only the side of the tests.
"""

import hashlib
import json
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mergebench.errors import MergebenchError, nearest
from mergebench.evaluation.code import candidate, confinement, examiner, server, tiers, wire
from mergebench.evaluation.code.tiers import Means
from mergebench.evaluation.code.verdicts import Store, Verdict

MEMORY_BYTES = 4 << 30
START_SECONDS = 60.0
GRACE_SECONDS = 15.0
TRIES = 2
# The servers get the sources through their socket: the package itself is not visible inside a sandbox. Imported in this order.
MODULES = (wire, confinement, candidate, examiner, server)
BOOTSTRAP = """
import json, socket, struct, sys, types
control = socket.socket(fileno=0)
def exactly(count):
    data = b""
    while len(data) < count:
        part = control.recv(count - len(data))
        if not part:
            raise SystemExit
        data += part
    return data
for name, source in json.loads(exactly(struct.unpack(">I", exactly(4))[0])).items():
    module = sys.modules[name] = types.ModuleType(name)
    parent = name.rpartition(".")[0]
    if parent:
        setattr(sys.modules[parent], name.rpartition(".")[2], module)
    exec(compile(source, name, "exec"), module.__dict__)
control.detach()
module.start()
"""


@dataclass(frozen=True)
class Task:
    """A program and its tests.

    Attributes:
        program: what the model wrote, with what was written around it.
        tests: Python that uses names which the program defines.
        entry: a name that the tests take from the program although Python has one of that name too; mostly none.
    """

    program: str
    tests: str
    entry: str = ""


@cache
def _sources() -> bytes:
    names: dict[str, str] = {}
    for module in MODULES:
        parts = module.__name__.split(".")
        for depth in range(1, len(parts)):
            names.setdefault(".".join(parts[:depth]), "")
        names[module.__name__] = Path(str(module.__file__)).read_text(encoding="utf-8")
    return json.dumps(names).encode()


class Server:
    """A warm server of one role in a sandbox.

    Raises:
        MergebenchError: it does not start in this tier.
    """

    def __init__(self, role: str, means: Means, *, tested: bool = False) -> None:
        own, theirs = socket.socketpair()
        try:
            with theirs:
                self.process = subprocess.Popen(
                    tiers.command(means, [sys.executable, "-P", "-s", "-c", BOOTSTRAP]),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env=tiers.environment(means),
                    start_new_session=True,
                )
        except OSError as error:
            own.close()
            raise MergebenchError(f"the sandbox {means.tier!r} did not start: {error}. See docs/evaluation-code.md.") from error
        self.control = server.Control(own)
        setting = {
            "role": role,
            "namespaces": means.tier == tiers.NAMESPACES,
            "landlock": means.landlock > 0,
            "seccomp": means.seccomp,
            "tested": tested and means.strong,
            "scratch_bytes": tiers.SCRATCH_BYTES,
            "readable": tiers.readable(),
        }
        try:
            sources = _sources()
            own.sendall(len(sources).to_bytes(4, "big") + sources)
            self.control.send(setting)
            greeting, _ = self.control.receive(START_SECONDS)
        except (EOFError, OSError) as error:
            greeting = {"error": f"it ended at once ({type(error).__name__})"}
        if "ready" not in greeting:
            self.close()
            raise MergebenchError(
                f"the sandbox {means.tier!r} did not start with {sys.executable}: {greeting['error']}. See docs/evaluation-code.md."
            )

    def close(self) -> None:
        """End the server; it removes its folder itself."""
        self.control.connection.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Pair:
    """The two servers of a worker."""

    def __init__(self, means: Means) -> None:
        self.candidate = Server("candidate", means)
        try:
            self.examiner = Server("examiner", means)
        except BaseException:
            self.candidate.close()
            raise

    def run(self, task: Task, timeout: float, memory_bytes: int) -> Verdict | None:
        """Run one program against its tests; None if a server died."""
        limits = {"order": "run", "timeout": timeout, "memory_bytes": memory_bytes}
        left, right = socket.socketpair()
        try:
            with left, right:
                self.candidate.control.send({**limits, "program": task.program}, left.fileno())
                self.examiner.control.send({**limits, "tests": task.tests, "entry": task.entry}, right.fileno())
            late = False
            try:
                told, _ = self.examiner.control.receive(timeout)
            except TimeoutError:
                late = True
                self.examiner.control.send({"order": "stop"})
                told, _ = self.examiner.control.receive(GRACE_SECONDS)
            self.candidate.control.send({"order": "stop"})
            ended, _ = self.candidate.control.receive(GRACE_SECONDS)
        except (EOFError, OSError):
            return None
        return _verdict(told, ended["excess"], late, timeout)

    def close(self) -> None:
        """End both servers."""
        self.candidate.close()
        self.examiner.close()


def _verdict(told: dict[str, Any], excess: str, late: bool, timeout: float) -> Verdict:
    report = json.loads(told["report"]) if told["report"] else None
    if report is not None and not late:
        failed = excess and not report["passed"]
        return Verdict(report["passed"], excess if failed else report["reason"])
    if excess:
        return Verdict(False, excess)
    return Verdict(False, f"timed out after {timeout:g} s" if late else "its tests ended without a verdict")


def detect(tier: str | None = None) -> Means:
    """The strongest tier that works here, or the named one.

    Raises:
        MergebenchError: the named tier does not work here.
    """
    if tier is not None and tier not in tiers.TIERS:
        raise MergebenchError(f"sandbox tier {tier!r} is not known; {nearest(tier, list(tiers.TIERS))}.")
    return _detect(tier)


@cache
def _detect(tier: str | None) -> Means:
    problem = "its program or the kernel's means are missing"
    for means in tiers.candidates():
        if tier is None or means.tier == tier:
            try:
                Server("candidate", means, tested=True).close()
            except MergebenchError as error:
                problem = str(error)
                if means.tier == tiers.RLIMITS:
                    raise
                continue
            return means
    raise MergebenchError(f"the sandbox tier {tier!r} does not work on this machine: {problem}")


def run(
    tasks: Sequence[Task],
    *,
    timeout_seconds: float,
    workers: int = 1,
    memory_bytes: int = MEMORY_BYTES,
    allow_weak: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    store: Path | None = None,
    tier: str | None = None,
) -> tuple[list[Verdict], dict[str, Any]]:
    """Run programs against their tests and say which pass.

    Args:
        tasks: equal ones run once.
        timeout_seconds: wall seconds for each, tests included.
        workers: how many run at the same time.
        memory_bytes: address space of each side.
        allow_weak: run even where the network or foreign files stay within reach.
        progress: called with done, total and what is being done.
        store: a file that keeps verdicts; those that it has are not found again.
        tier: use this one instead of the strongest.

    Returns:
        A verdict per task, and what confined the programs, for the score record.

    Raises:
        MergebenchError: this machine cannot confine programs, and `allow_weak` is false.
    """
    means = detect(tier)
    facts = means.facts() | {"timeout_seconds": timeout_seconds, "memory_bytes": memory_bytes}
    if not means.strong and not allow_weak:
        raise MergebenchError(
            f"programs written by the model cannot be confined here (network: {means.network}; files: {means.files}). Install "
            "bubblewrap, or use a Linux kernel with Landlock (5.13 or newer) and seccomp, or set evaluation.allow_weak_sandbox "
            "to true to run them with resource limits only."
        )
    kept = Store(store)
    keys = {task: _key(task, facts) for task in tasks}
    pending: queue.SimpleQueue[Task] = queue.SimpleQueue()
    todo = [task for task in keys if keys[task] not in kept.known]
    for task in todo:
        pending.put(task)
    lock = threading.Lock()
    done: list[Task] = []
    failures: list[BaseException] = []

    def work() -> None:
        pair = None
        try:
            while not failures:
                try:
                    task = pending.get_nowait()
                except queue.Empty:
                    return
                verdict = None
                for _ in range(TRIES):
                    pair = pair or Pair(means)
                    verdict = pair.run(task, timeout_seconds, memory_bytes)
                    if verdict is not None:
                        break
                    pair.close()
                    pair = None
                with lock:
                    kept.add(keys[task], verdict or Verdict(False, "the program brought its sandbox down"))
                    done.append(task)
                    if progress is not None:
                        progress(len(keys) - len(todo) + len(done), len(keys), "programs run")
        except BaseException as error:
            failures.append(error)
        finally:
            if pair is not None:
                pair.close()

    threads = [threading.Thread(target=work) for _ in range(max(1, min(workers, len(todo)) if todo else 0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [kept.known[keys[task]] for task in tasks], facts


@cache
def _code() -> str:
    return hashlib.sha256(_sources()).hexdigest()


def _key(task: Task, facts: dict[str, Any]) -> str:
    parts = json.dumps([asdict(task), facts, _code(), sys.version], sort_keys=True)
    return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()
