"""What the file system of the results can do, tried on files of a folder that is removed afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mergebench.artifacts import remove
from mergebench.workflow.doctor import probe

TRY_LOCK = "import pathlib, sys; from mergebench.workflow.doctor.probe import try_lock; print(try_lock(pathlib.Path(sys.argv[1])))"


@dataclass(frozen=True)
class Folder:
    """The outcome of the trials, `problem` if the folder cannot be written at all; `inodes` is None where they are not counted."""

    path: str
    problem: str = ""
    lock: str = ""
    rename: str = ""
    fsync_seconds: float = 0.0
    clock_ahead: float = 0.0
    free_bytes: int = 0
    inodes: int | None = None


@contextlib.contextmanager
def workbench(results: Path) -> Iterator[Path]:
    """A scratch folder beside the results, on their file system.

    Raises:
        OSError: it cannot be made.
    """
    parent = results.parent
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".doctor-", dir=parent))
    try:
        yield folder
    finally:
        remove(folder)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[Path]:
    """A file whose lock this process holds."""
    path = folder / "held"
    with path.open("w+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield path


def examine(folder: Path) -> Folder:
    """Try locks, renames and flushing in `folder`, and measure what is free."""
    with held(folder) as path:
        child = subprocess.run([sys.executable, "-c", TRY_LOCK, str(path)], capture_output=True, text=True, timeout=60, check=False)
        lock = child.stdout.strip() or child.stderr.strip().rpartition("\n")[2]
    space = os.statvfs(folder)
    return Folder(
        path=str(folder.parent),
        lock=lock,
        rename=_rename(folder),
        fsync_seconds=_fsync(folder),
        clock_ahead=probe.clock(folder),
        free_bytes=space.f_bavail * space.f_frsize,
        inodes=space.f_favail if space.f_files else None,
    )


def _rename(folder: Path) -> str:
    """Whether a rename replaces a file that another handle still reads: ``atomic``, or what went wrong."""
    old, new = folder / "published", folder / "staged"
    old.write_text("old")
    new.write_text("new")
    try:
        with old.open() as reader:
            os.replace(new, old)
            kept = reader.read()
    except OSError as error:
        return f"{type(error).__name__}: {error.strerror}"
    return "atomic" if (kept, old.read_text(), new.exists()) == ("old", "new", False) else f"a reader saw {kept!r}"


def _fsync(folder: Path) -> float:
    """Seconds to write and flush a small file."""
    started = time.monotonic()
    with (folder / "flushed").open("wb") as stream:
        stream.write(b"x" * 4096)
        stream.flush()
        os.fsync(stream.fileno())
    return time.monotonic() - started
