"""Run all hostile programs in one tier, as this user or as nobody, and print what happened as JSON.

A process of its own: it adopts every process that the programs leave, carries a token in its environment, and may give up
root for good.
"""

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65534
LIMITED = ("escape: memory bomb", "escape: large file", "escape: sparse file", "escape: own environment")
CLONE_NEWNS, MS_REC_PRIVATE, PR_SET_CHILD_SUBREAPER = 0x20000, 0x44000, 36


def become_nobody() -> None:
    """Give up root. Where the interpreter or this tree lies in a folder of root's alone, it is shown at the same place."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(None, b"/", None, MS_REC_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "no mount namespace")
    needed = {Path(sys.prefix), Path(sys.base_prefix).resolve(), ROOT}
    closed = {a for path in needed for a in list(path.parents)[-2::-1] if not a.stat().st_mode & 1}
    for top in sorted(closed):
        inside = [path for path in needed if top in path.parents]
        kept = [(path, tempfile.mkdtemp(dir="/tmp")) for path in inside]
        for path, place in kept:
            subprocess.run(["mount", "--bind", path, place], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", top], check=True)
        for path, place in kept:
            path.mkdir(parents=True)
            subprocess.run(["mount", "--bind", place, path], check=True)
            subprocess.run(["umount", "-l", place], check=True)
            os.rmdir(place)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def remaining(deadline: float) -> list[str]:
    """Command lines of the processes that are still there at the deadline; sooner if there are none."""
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        if not pids or time.monotonic() > deadline:
            return [Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace") for pid in pids]
        time.sleep(0.05)


def main() -> None:
    tier, user, wishes = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    if user == "nobody":
        become_nobody()
    sys.path.insert(0, str(ROOT))
    from mergebench.errors import MergebenchError
    from mergebench.evaluation.code import sandbox
    from tests.unit.evaluation.hostile import ENDLESS, ESCAPES, FORGERIES, SQUARE, escape

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wishes["pid"] = os.getpid()
    names = {f"escape: {name}": sandbox.Task(escape(body, wishes), "assert f() is True") for name, body in ESCAPES.items()}
    if tier == "rlimits":  # nothing confines there but resource limits, so only what these are for
        names = {name: task for name, task in names.items() if name in LIMITED}
    names |= {f"forgery: {name}": sandbox.Task(program, SQUARE) for name, program in FORGERIES.items()}
    names["honest"] = sandbox.Task("def f(x):\n    open('own', 'w').write('x')\n    return x * x", SQUARE)
    try:
        sandbox.detect(tier)
    except MergebenchError as error:
        print(json.dumps({"missing": str(error)}))
        return
    found = {}
    started = time.monotonic()
    for seconds, chosen in ((30.0, set(names) - {f"forgery: {name}" for name in ENDLESS}), (0.5, {f"forgery: {name}" for name in ENDLESS})):
        own = [name for name in names if name in chosen]
        verdicts, facts = sandbox.run(
            [names[name] for name in own], timeout_seconds=seconds, memory_bytes=512 << 20, workers=1, tier=tier, allow_weak=True
        )
        found |= {name: [verdict.passed, verdict.reason] for name, verdict in zip(own, verdicts, strict=True)}
    report = {"verdicts": found, "facts": facts, "seconds": time.monotonic() - started, "left": remaining(time.monotonic() + 10)}
    print(json.dumps({**report, "user": os.getuid()}))


if __name__ == "__main__":
    main()
