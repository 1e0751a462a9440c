"""What can confine programs on this machine, from the strongest means to the weakest, and how a server is started in it.

Whether a tier works is found by using it: a server starts in it, confines a throw-away child and has that try to reach the
network and a foreign file. Means that add to each other are combined: every tier but the last also uses Landlock, seccomp,
empty capabilities and resource limits where the machine has them.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mergebench.evaluation.code import confinement

BUBBLEWRAP, APPTAINER, NAMESPACES, LANDLOCK, RLIMITS = TIERS = ("bubblewrap", "apptainer", "namespaces", "landlock", "rlimits")
SCRATCH_BYTES = 64 << 20
SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")


@dataclass(frozen=True)
class Means:
    """What confines programs: the tier, and what is combined with it."""

    tier: str
    landlock: int
    seccomp: bool

    @property
    def strong(self) -> bool:
        """Whether the network, foreign files and other processes are out of reach."""
        return self.tier != RLIMITS

    @property
    def network(self) -> str:
        """What cuts the network."""
        return {LANDLOCK: "seccomp", RLIMITS: "open"}.get(self.tier, "namespace")

    @property
    def files(self) -> str:
        """What hides foreign files."""
        lock = [f"landlock {self.landlock}"] if self.landlock else []
        mounts = ["mount namespace"] if self.tier in (BUBBLEWRAP, APPTAINER) else []
        return " + ".join([*mounts, *lock]) or "open"

    def facts(self) -> dict[str, Any]:
        """In words, for the score record."""
        return {
            "tier": self.tier if self.strong else "weak",
            "network": self.network,
            "files": self.files,
            "processes": "seccomp" if self.seccomp else "process namespace" if self.tier in (BUBBLEWRAP, APPTAINER) else "open",
            "scratch": f"{SCRATCH_BYTES >> 20} MiB " + ("watched" if self.tier in (LANDLOCK, RLIMITS, APPTAINER) else "in memory"),
        }


def candidates() -> list[Means]:
    """Tiers that this machine may have, strongest first; whether they work shows when they are used."""
    lock, calls = (confinement.landlock_version(), confinement.can_filter_calls()) if sys.platform == "linux" else (0, False)
    found = []
    if shutil.which("bwrap"):
        found.append(Means(BUBBLEWRAP, lock, calls))
    if shutil.which("apptainer"):
        found.append(Means(APPTAINER, lock, calls))
    if lock and calls:
        found += [Means(NAMESPACES, lock, calls), Means(LANDLOCK, lock, calls)]
    return [*found, Means(RLIMITS, 0, False)]


def readable() -> list[str]:
    """Folders that a program may read besides the system's: the Python installation and the libraries that it was given."""
    libraries = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path.startswith("/")]
    installed = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    folders = {*installed, *map(os.path.realpath, installed), *libraries}
    return sorted(path for path in folders if os.path.isdir(path))


def environment(means: Means) -> dict[str, str]:
    """The whole environment of a server: no tokens, no proxies, no home."""
    scratch = {} if means.tier in (BUBBLEWRAP, APPTAINER) else {"TMPDIR": tempfile.gettempdir()}
    libraries = {"LD_LIBRARY_PATH": os.environ["LD_LIBRARY_PATH"]} if os.environ.get("LD_LIBRARY_PATH") else {}
    numeric = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    # Sets of strings have one order, so that a program's verdict does not depend on the run.
    return {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", **numeric, **libraries, **scratch}


def command(means: Means, python: Sequence[str]) -> list[str]:
    """The command that runs `python` (a command itself) in a tier."""
    if means.tier == BUBBLEWRAP:
        return [*_bubblewrap(), *python]
    if means.tier == APPTAINER:
        return [*_apptainer(), *python]
    return list(python)


def _bubblewrap() -> list[str]:
    words = [shutil.which("bwrap") or "bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    words += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev", "--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp"]
    words += ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    words += ["--ro-bind-try", "/etc/localtime", "/etc/localtime"]
    for path in SYSTEM:
        if os.path.islink(path):
            words += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            words += ["--ro-bind", path, path]
    for path in readable():
        if not path.startswith("/usr/") and path != "/usr":
            words += ["--ro-bind", path, path]
    return [*words, "--chdir", "/tmp"]


def _apptainer() -> list[str]:
    binds = [word for path in readable() for word in ("--bind", f"{path}:{path}:ro")]
    return [
        shutil.which("apptainer") or "apptainer",
        "--silent",
        "exec",
        "--containall",
        "--no-home",
        "--net",
        "--network",
        "none",
        *binds,
        "/",
    ]
