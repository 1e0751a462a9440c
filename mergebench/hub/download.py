"""Files of a hub repository at a commit: listed with their hashes, fetched with resumption, each one verified.

A file appears under its name when its size and hash are those that the hub names; until then it is ``<name>.part``, and the
next attempt goes on where that ends. `huggingface_hub` does the talking; its own downloads keep no partial file across
processes, which at 5 GB a shard is what a killed job misses most.
"""

import hashlib
import queue
import shutil
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from mergebench.artifacts import CHUNK
from mergebench.errors import MergebenchError
from mergebench.hub.lock import Kind

PART = ".part"
CONNECTIONS = 4
POLL = 0.5  # seconds between looks at the progress
GB = 1e9


@dataclass(frozen=True)
class Remote:
    """A file as the hub lists it.

    Attributes:
        name: its path in the repository.
        size: bytes.
        sha256: of large files (LFS); None for the others.
        blob: git's SHA-1 of the others, over ``blob <size>\\0`` and the content.
    """

    name: str
    size: int
    sha256: str | None
    blob: str | None

    def is_at(self, path: Path) -> bool:
        """Whether a file has this one's size and hash."""
        if path.stat().st_size != self.size:
            return False
        if self.sha256 is None and self.blob is None:
            return True
        digest = hashlib.sha256() if self.sha256 else hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)
        with path.open("rb") as stream:
            while block := stream.read(CHUNK):
                digest.update(block)
        return digest.hexdigest() == (self.sha256 or self.blob)


def newest(kind: Kind, name: str, revision: str | None) -> str:
    """Ask the hub which commit a revision (None: the default branch) of a repository is."""
    from huggingface_hub import HfApi

    sha = HfApi().repo_info(name, repo_type=kind, revision=revision).sha
    if sha is None:
        raise MergebenchError(f"The hub did not say at which commit {name} is; try again later.")
    return sha


def listing(kind: Kind, name: str, commit: str) -> list[Remote]:
    """All files of a repository at a commit."""
    from huggingface_hub import HfApi

    api = HfApi()
    ask = api.model_info if kind == "model" else api.dataset_info
    siblings = ask(name, revision=commit, files_metadata=True).siblings or []
    return [
        Remote(s.rfilename, (s.lfs.size if s.lfs else s.size) or 0, s.lfs.sha256 if s.lfs else None, None if s.lfs else s.blob_id)
        for s in siblings
    ]


def matching(files: Iterable[Remote], patterns: Iterable[str]) -> list[Remote]:
    """The files in the repository's root that match one of the patterns."""
    wanted = list(patterns)
    return [file for file in files if "/" not in file.name and any(fnmatch(file.name, pattern) for pattern in wanted)]


def fetch(
    kind: Kind,
    name: str,
    commit: str,
    files: list[Remote],
    folder: Path,
    progress: Callable[[float, float, str], object],
    setting: str = "`results`",
) -> None:
    """Bring files into `folder`; those that are there already stay.

    Args:
        kind, name, commit: the repository.
        files: what to fetch.
        folder: where to; the same in every attempt.
        progress: told (done, total, what), in GB.
        setting: what moves `folder` to another disk.

    Raises:
        MergebenchError: there is not enough space, or a file twice did not have the hash that the hub names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [file for file in files if not (folder / file.name).is_file()]
    _check_space(name, missing, folder, setting)
    total = sum(file.size for file in files) / GB
    waiting: queue.SimpleQueue[Remote] = queue.SimpleQueue()
    for file in sorted(missing, key=lambda file: -file.size):
        waiting.put(file)
    problems: list[BaseException] = []

    def work() -> None:
        try:
            while not problems:
                _fetch(kind, name, commit, waiting.get_nowait(), folder)
        except queue.Empty:
            pass
        except BaseException as error:
            problems.append(error)

    # Daemons: a signal ends the process at once, and what they have written stays for the next attempt.
    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(CONNECTIONS, len(missing)))]
    for worker in workers:
        worker.start()
    for worker in workers:
        while worker.is_alive():
            worker.join(POLL)
            progress(sum(_present(folder / file.name) for file in files) / GB, total, f"GB of {name}")
    if problems:
        raise problems[0]


def _fetch(kind: Kind, name: str, commit: str, file: Remote, folder: Path) -> None:
    """Fetch one file; content that is not the hub's is thrown away and fetched once more."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers, disable_progress_bars

    disable_progress_bars()
    part = folder / (file.name + PART)
    part.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(2):
        if part.is_file() and part.stat().st_size > file.size:
            part.unlink()
        with part.open("ab") as stream:
            http_get(
                hf_hub_url(name, file.name, repo_type=kind, revision=commit),
                stream,
                resume_size=stream.tell(),
                headers=build_hf_headers() | {"Accept-Encoding": "identity"},
                expected_size=file.size,
                displayed_filename=file.name,
            )
        if file.is_at(part):
            part.replace(folder / file.name)
            return
        part.unlink()
    raise MergebenchError(
        f"{file.name} of {name} arrived twice with content that differs from the hash that the hub names; "
        "try again later, or ask what stands between this machine and the hub."
    )


def remove_damaged(files: Iterable[Remote], folder: Path) -> list[str]:
    """Delete those of `files` below `folder` that do not have the hash that the hub names; returns their names."""
    damaged = [file.name for file in files if (folder / file.name).is_file() and not file.is_at(folder / file.name)]
    for path in (folder / name for name in damaged):
        path.resolve().unlink()  # in the hub's cache, a name may be a link to the content
        path.unlink(missing_ok=True)
    return damaged


def _check_space(name: str, missing: list[Remote], folder: Path, setting: str) -> None:
    needed = sum(file.size - min(_present(folder / file.name), file.size) for file in missing)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise MergebenchError(
            f"{name} needs {_size(needed)} more in {folder}, where {_size(free)} are free; make room, or set {setting} to "
            "a folder on a larger disk."
        )


def _size(count: float) -> str:
    return f"{count / GB:.1f} GB" if count >= GB / 10 else f"{count / 1e6:.2f} MB"


def _present(path: Path) -> int:
    """Bytes of a file that have arrived."""
    for found in (path, path.with_name(path.name + PART)):
        try:
            return found.stat().st_size
        except FileNotFoundError:
            continue
    return 0
