"""Which commit of every hub repository is read: looked up at the first fetch, recorded in a file, honoured by all later fetches.

The file lies beside `config.yaml`, serves every preset, and is worth committing: with it another machine, or the same one a
year later, fetches the same bytes. It holds no commit that the hub has not named.

    {"dataset": {"openai/gsm8k": "740312add88f..."}, "model": {"google/gemma-2-2b@v1": "c5ebcd40d208..."}}

A repository that is wanted at a branch or tag is recorded under ``name@revision``. One that is wanted at a commit (40
hexadecimal digits) needs no record.
"""

import contextlib
import fcntl
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from mergebench.artifacts import read_json, write_json
from mergebench.errors import MergebenchError

Kind = Literal["dataset", "model"]
KINDS: tuple[Kind, ...] = ("dataset", "model")
FILE = Path("hub.lock.json")
COMMIT = re.compile(r"[0-9a-f]{40}")
Records = dict[str, dict[str, str]]
Ask = Callable[[str, str | None], str]


def commit(path: Path | None, kind: Kind, name: str, revision: str | None, ask: Ask) -> str:
    """The commit at which to read a repository.

    Args:
        path: the lock file; None: nothing is recorded or honoured.
        kind: "dataset" or "model".
        name: the repository.
        revision: what the catalogue or the configuration asks for: a commit, a branch, a tag, or None for the default branch.
        ask: looks a revision up on the hub: (name, revision) -> commit.

    Raises:
        MergebenchError: the lock file is broken, or the hub cannot say.
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    if path is None:
        return ask(name, revision)
    key = entry(name, revision)
    if (known := read(path)[kind].get(key)) is not None:
        return known
    found = ask(name, revision)
    with alone(path):  # several fetches run at once; the first to record a repository decides
        records = read(path)
        if key in records[kind]:
            return records[kind][key]
        records[kind][key] = found
        write_json(path, records)
    return found


def entry(name: str, revision: str | None) -> str:
    """The name under which a repository is recorded."""
    return name if revision is None else f"{name}@{revision}"


def read(path: Path) -> Records:
    """The records of a lock file; one that does not exist has none.

    Raises:
        MergebenchError: the file is not a lock, or an entry is not a commit.
    """
    if not path.is_file():
        return {kind: {} for kind in KINDS}
    content = read_json(path)
    if not isinstance(content, dict) or not set(content) <= set(KINDS):
        raise MergebenchError(f"{path} is no lock of hub revisions; expected maps called {' and '.join(KINDS)}. Delete it to begin anew.")
    records: Records = {kind: dict(content.get(kind) or {}) for kind in KINDS}
    for kind, entries in records.items():
        for key, found in entries.items():
            if not isinstance(found, str) or not COMMIT.fullmatch(found):
                raise MergebenchError(f"{path}: {kind} {key} is locked at {found!r}; expected a commit of 40 hexadecimal digits.")
    return records


def move(path: Path, wanted: Callable[[str, str], bool], ask: Callable[[Kind, str, str | None], str]) -> list[tuple[Kind, str, str, str]]:
    """Look the wanted entries up anew and record what the hub says now.

    Args:
        path: the lock file.
        wanted: says of (kind, repository) whether it shall move on.
        ask: looks a revision up on the hub: (kind, name, revision) -> commit.

    Returns:
        Kind, entry, commit before and commit now, of every wanted entry.
    """
    moved: list[tuple[Kind, str, str, str]] = []
    for kind in KINDS:
        for key, before in sorted(read(path)[kind].items()):
            name, _, revision = key.partition("@")
            if wanted(kind, name):
                moved.append((kind, key, before, ask(kind, name, revision or None)))
    with alone(path):
        records = read(path)
        for kind, key, _, now in moved:
            records[kind][key] = now
        if moved:
            write_json(path, records)
    return moved


@contextlib.contextmanager
def alone(path: Path, waiting: str | None = None) -> Iterator[None]:
    """Keep other processes from writing a file or folder meanwhile. The guard is a file of its own, since the lock file is replaced.

    Args:
        path: what is written; the guard lies beside it.
        waiting: printed where another process is at it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    guard = path.with_name(f".{path.name}.guard")
    with guard.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                print(waiting, file=sys.stderr, flush=True)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
