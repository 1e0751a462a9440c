"""The source of a run: copied once at its start, so that an edit while it runs changes none of its results.

A job that starts hours later imports the package anew, and a Slurm job reads the Snakefile again too. Both take them
from the copy; the next run finds the edit, and with it what has become stale. Nothing but the standard library is
imported here, because everything else is imported from the copy.
"""

import fcntl
import hashlib
import importlib
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

PACKAGE_ROOT = Path(__file__).resolve().parents[1]
PACKAGE = PACKAGE_ROOT.name
VARIABLE = "MERGEBENCH_SOURCE"
FOLDER = Path(".snakemake/mergebench")
BESIDE = ("rules", "envs")  # what the Snakefile names by paths relative to itself
USED = ".in-use"
_HELD: list[IO[str]] = []
ASKING = {
    *("--dry-run", "--dryrun", "--lint", "--report", "--summary", "-S", "--detailed-summary", "-D", "--dag", "--rulegraph"),
    *("--filegraph", "--d3dag", "--list-rules", "--list", "-l", "--list-target-rules", "--list-changes", "--unlock", "--touch", "-t"),
    *("--archive", "--containerize", "--cleanup-metadata", "--delete-all-output", "--generate-unit-tests", "--print-compilation"),
}


def only_asks(arguments: Sequence[str]) -> bool:
    """Whether a Snakemake command line asks for a plan, a report or a list, and runs nothing.

    Snakemake knows this only after the Snakefile has been parsed, which is too late for what must precede planning.
    """
    return any(word in ASKING or re.fullmatch(r"-[a-zA-Z]*n[a-zA-Z]*", word) for word in arguments)


def enter(snakefile: str, *, main: bool, arguments: Sequence[str]) -> None:
    """Go on with the run's copy of the package: made here by the main process, named in the environment for all others.

    Where the copy cannot be made or is gone, the process ends with a sentence.
    """
    if main and only_asks(arguments):
        return
    try:
        if main:
            export(lock(Path(snakefile)))
        elif VARIABLE in os.environ:
            hold(Path(os.environ[VARIABLE]))
    except OSError as error:
        what = "cannot be copied; free space there" if main else "is gone, as after the end of the run that submitted this job"
        sys.exit(f"mergebench: the source of this run {what} ({error}); start snakemake again.")
    if VARIABLE in os.environ:
        import_from(Path(os.environ[VARIABLE]))


def lock(snakefile: Path) -> Path:
    """The copy of the package, `snakefile` and what belongs to it; older copies that no process uses are removed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "sources.lock").open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        for abandoned in FOLDER.resolve().glob(".source-*"):  # by a process that was killed; nobody else copies now
            shutil.rmtree(abandoned)
        files = dict(_files(snakefile))
        copy = FOLDER.resolve() / f"source-{_digest(files)}"
        if not copy.is_dir():
            _copy(files, copy)
        hold(copy)
        for other in FOLDER.resolve().glob("source-*"):
            if other != copy and not _in_use(other):
                shutil.rmtree(other, ignore_errors=True)
    return copy


def hold(copy: Path) -> None:
    """Keep a copy from being removed for as long as this process lives."""
    stream = (copy / USED).open("a+")
    fcntl.flock(stream, fcntl.LOCK_SH)
    _HELD.append(stream)


def export(copy: Path) -> None:
    """Let every process that this one starts, on whichever machine, import the package from the copy."""
    earlier = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(copy), *filter(None, [earlier])])
    os.environ[VARIABLE] = str(copy)


def import_from(copy: Path) -> None:
    """Import the package from `copy` from now on, whatever this process has imported of it before."""
    for name in [name for name in sys.modules if name == PACKAGE or name.startswith(f"{PACKAGE}.")]:
        del sys.modules[name]
    sys.path.insert(0, str(copy))
    importlib.invalidate_caches()


def _files(snakefile: Path) -> Iterator[tuple[str, Path]]:
    """Relative name in the copy and origin of every file, in a fixed order."""
    yield snakefile.name, snakefile
    for name, folder in [(PACKAGE, PACKAGE_ROOT), *((name, snakefile.parent / name) for name in BESIDE)]:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"{name}/{path.relative_to(folder).as_posix()}", path


def _digest(files: dict[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in files.items():
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def _copy(files: dict[str, Path], copy: Path) -> None:
    """Write the copy beside its place and move it there, so that it is complete or absent."""
    temporary = copy.with_name(f".{copy.name}.tmp-{os.getpid()}")
    for name, path in files.items():
        target = temporary / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    temporary.rename(copy)


def _in_use(copy: Path) -> bool:
    with (copy / USED).open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
