"""Facts about the machine on which this file runs, as JSON: here, and as a small job on a compute node.

Standard library only, and runnable as a file of its own: ``python probe.py ANSWER HELD`` writes the facts to the file
ANSWER, after trying the lock of the file HELD, which the asking process holds.
"""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TORCH = """
import json, torch
there = torch.cuda.is_available()
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "available": there, "devices": torch.cuda.device_count() if there else 0,
    "bf16": bool(torch.cuda.is_bf16_supported()) if there else None,
}))
"""
OFFLINE = """
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled
try:
    HfApi().model_info("gpt2")
except OfflineModeIsEnabled:
    print("refused")
else:
    print("used the network")
"""


def facts() -> dict[str, Any]:
    """Everything that the checks want to know about this machine."""
    return {
        "host": platform.node(),
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "packages": packages(),
        "source": source(),
        "limits": {"files": _soft(resource.RLIMIT_NOFILE), "locked_memory": _soft(resource.RLIMIT_MEMLOCK)},
        "shared_memory_bytes": _size("/dev/shm"),
        "temporary": {"folder": tempfile.gettempdir(), "free_bytes": shutil.disk_usage(tempfile.gettempdir()).free},
        "sandbox": sandbox(),
        "offline": _child(OFFLINE, HF_HUB_OFFLINE="1"),
        "gpu": gpu(),
        "torch": torch(),
        "glibc": " ".join(filter(None, platform.libc_ver())),
    }


def packages() -> dict[str, str]:
    """Version of every installed package by its normalised name."""
    found: dict[str, str] = {}
    for each in importlib.metadata.distributions():
        name = each.metadata["Name"]
        if name:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), each.version)
    return dict(sorted(found.items()))


def source() -> dict[str, str]:
    """Where `import mergebench` leads, and a digest of the Python files there."""
    found = importlib.util.find_spec("mergebench")
    if found is None or found.origin is None:
        return {"folder": "", "digest": ""}
    folder = Path(found.origin).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return {"folder": str(folder), "digest": digest.hexdigest()[:16]}


def sandbox() -> dict[str, Any]:
    """What could confine programs written by a model."""
    try:
        from mergebench.errors import MergebenchError
        from mergebench.evaluation.code.sandbox import detect
    except ImportError as error:
        return {"strong": False, "network": "unknown", "files": f"{type(error).__name__}: {error}"}
    try:
        means = detect()
    except (MergebenchError, OSError) as error:
        return {"strong": False, "network": "unknown", "files": str(error)}
    return {"strong": means.strong, "network": f"{means.tier} ({means.network})", "files": means.files}


def gpu() -> dict[str, Any]:
    """What the driver says: its newest CUDA version, and name, memory (MiB) and compute capability of each GPU."""
    if shutil.which("nvidia-smi") is None:
        return {"driver_cuda": None, "devices": []}
    cuda = re.search(r"CUDA Version:\s*([\d.]+)", _output("nvidia-smi"))
    table = _output("nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader,nounits")
    devices = []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 4:
            devices.append(dict(zip(("name", "driver", "memory_mib", "capability"), cells, strict=True)))
    return {"driver_cuda": cuda[1] if cuda else None, "devices": devices}


def torch() -> dict[str, Any]:
    """Version of torch, the CUDA that it was built for, and whether it can use a GPU here; `error` if it cannot be imported."""
    printed = _child(TORCH)
    try:
        found: dict[str, Any] = json.loads(printed)
    except ValueError:
        return {"error": printed}
    return found


def try_lock(path: Path) -> str:
    """Try the lock of a file that another process holds: ``refused`` is right, ``granted`` means that locks do not hold."""
    try:
        with path.open("rb+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "refused"
    except OSError as error:
        return f"{type(error).__name__}: {error.strerror}"
    return "granted"


def clock(folder: Path) -> float:
    """Seconds by which this machine's clock is ahead of the times that the file system of `folder` gives to new files."""
    path = folder / f"clock-{platform.node()}-{os.getpid()}"
    before = time.time()
    path.write_bytes(b"x")
    after = time.time()
    ahead = (before + after) / 2 - path.stat().st_mtime
    path.unlink()
    return ahead


def _soft(kind: int) -> int | None:
    """The soft limit; None if there is none."""
    value = resource.getrlimit(kind)[0]
    return None if value == resource.RLIM_INFINITY else value


def _size(folder: str) -> int | None:
    return shutil.disk_usage(folder).total if os.path.isdir(folder) else None


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _child(program: str, **variables: str) -> str:
    """What a Python program prints, or the last line of its error. A child, because libraries read variables once."""
    environment = {**os.environ, **variables}
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=180, check=False, env=environment, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def main() -> None:
    """Write the facts of this machine where the asking process waits for them."""
    answer, held = Path(sys.argv[1]), Path(sys.argv[2])
    sys.path.insert(0, os.getcwd())
    content = {**facts(), "lock": try_lock(held), "clock_ahead": clock(answer.parent)}
    temporary = answer.with_suffix(".part")
    temporary.write_text(json.dumps({**content, "written": time.time()}), encoding="utf-8")
    os.replace(temporary, answer)


if __name__ == "__main__":
    main()
