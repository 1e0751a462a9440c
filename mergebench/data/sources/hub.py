"""Rows from the Hugging Face hub, and from pinned files of the authors' repositories. Used in fetch jobs only.

The commit of every hub dataset is looked up once and locked (`mergebench.hub.lock`), everything is read at that commit, every
file is compared with the hash that the hub names, and the manifest records both. Files from other addresses are
pinned by commit and SHA-256 in the catalogue.
"""

import fnmatch
import tempfile
import textwrap
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mergebench.artifacts import sha256_file
from mergebench.data import readers
from mergebench.data.convert import HUB, convert, convert_training
from mergebench.data.records import Record
from mergebench.data.sources.loaded import Loaded
from mergebench.errors import MergebenchError
from mergebench.hub import lock as locking
from mergebench.hub.dataset_files import Split, fetch_files, find_split, read_split
from mergebench.hub.download import listing, newest
from mergebench.hub.refusals import explained, gated

Progress = Callable[[float, float, str], object]


def load(dataset: str, entry: dict[str, Any], seed: int, lock: Path | None = None, progress: Progress = lambda *_: None) -> Loaded:
    """Fetch every part of a dataset, at the commits that the file `lock` names or gets.

    Raises:
        MergebenchError: the hub does not have the dataset, refuses it (gated), cannot be reached, or a file's
            hash is not the one that the hub or the catalogue names.
    """
    if "hub" not in entry:
        raise MergebenchError(f"{dataset} ({entry['title']}) is not on the hub; set data.sources.{dataset} to local or tiny.")
    loaded = Loaded([])
    wanted: dict[str, dict[str, str]] = entry["hub"]["parts"]
    parts = {name: _from_url(part["url"], part["sha256"], loaded) for name, part in wanted.items() if "url" in part}
    for identifier in dict.fromkeys(part["id"] for part in wanted.values() if "id" in part):
        of_it = {name: part for name, part in wanted.items() if part.get("id") == identifier}
        loaded.revisions[identifier] = commit(next(iter(of_it.values())), entry["gated"], lock)
        parts |= _from_repository(identifier, loaded.revisions[identifier], of_it, loaded, progress)
    parts = {name: parts[name] for name in wanted}
    if dataset in HUB:
        loaded.rows = convert(dataset, HUB, parts, seed)
    else:
        loaded.rows, loaded.tallies = convert_training(dataset, entry, parts)
    return loaded


def commit(part: dict[str, str], is_gated: bool, lock: Path | None = None) -> str:
    """The commit to read a part's dataset at: the catalogue's revision, the locked one, or the newest, which is locked now."""
    from huggingface_hub import get_token

    if is_gated and not get_token():
        raise gated("dataset", part["id"])
    with explained("dataset", part["id"]):
        return locking.commit(lock, "dataset", part["id"], part.get("revision"), dataset_commit)


def dataset_commit(identifier: str, revision: str | None) -> str:
    """Ask the hub which commit a revision (None: the default branch) is."""
    return newest("dataset", identifier, revision)


def fetch_url(url: str, sha256: str, path: Path) -> None:
    """Write a file from an address other than the hub to `path`.

    Raises:
        MergebenchError: it cannot be fetched, or does not have the SHA-256 that the catalogue names.
    """
    try:
        path.write_bytes(open_url(url))
    except (urllib.error.URLError, OSError) as error:
        raise MergebenchError(f"{url} could not be fetched ({error}); try again, or use the local source.") from error
    if (found := sha256_file(path)) != sha256:
        raise MergebenchError(f"{url} has SHA-256 {found[:12]}…, the catalogue expects {sha256[:12]}…: fetch it again.")


def open_url(url: str) -> bytes:
    """Fetch a file from an address other than the hub."""
    with urllib.request.urlopen(url, timeout=60) as response:
        content: bytes = response.read()
    return content


def _from_repository(
    identifier: str, revision: str, parts: dict[str, dict[str, str]], loaded: Loaded, progress: Progress
) -> dict[str, list[Record]]:
    """The records of those parts of a dataset that lie in one repository of the hub; their files are fetched together."""
    with explained("dataset", identifier):
        listed = {file.name: file for file in listing("dataset", identifier, revision)}
    splits = {name: _split(part, revision) for name, part in parts.items() if "split" in part}
    names = {name: list(split.files) for name, split in splits.items()}
    names |= {name: _matching(identifier, revision, part["file"], listed) for name, part in parts.items() if "file" in part}
    wanted = sorted({file for files in names.values() for file in files})
    paths = fetch_files(identifier, revision, [listed[file] for file in wanted], progress)
    loaded.files |= {f"{identifier}/{file}": sha256_file(path) for file, path in paths.items()}
    return {
        name: _rows(part, revision, splits[name], [paths[file] for file in names[name]])
        if name in splits
        else [record for file in names[name] for record in readers.read(paths[file])]
        for name, part in parts.items()
    }


def _matching(identifier: str, revision: str, pattern: str, listed: Iterable[str]) -> list[str]:
    """The files of a dataset whose name fits a pattern."""
    if found := sorted(fnmatch.filter(listed, pattern)):
        return found
    raise MergebenchError(f"{identifier} at {revision[:12]} has no file {pattern}; it has {', '.join(sorted(listed)[:10])}.")


def _split(part: dict[str, str], revision: str) -> Split:
    """What the split of a part consists of."""
    with explained("dataset", part["id"]):
        try:
            return find_split(part["id"], part.get("config"), part["split"], revision)
        except (FileNotFoundError, ValueError, RuntimeError) as error:
            raise _unreadable(part, revision, error) from error


def _rows(part: dict[str, str], revision: str, split: Split, paths: list[Path]) -> list[Record]:
    """The records of a part that is a split."""
    try:
        table = read_split(split, part["split"], paths)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(part, revision, error) from error
    if not len(table):
        raise MergebenchError(f"{_place(part)} at {revision[:12]} holds no records.")
    return [Record(values, f"{_place(part)}, row {number}") for number, values in enumerate(table, start=1)]


def _place(part: dict[str, str]) -> str:
    return "/".join(filter(None, (part["id"], part.get("config"), part["split"])))


def _unreadable(part: dict[str, str], revision: str, error: Exception) -> MergebenchError:
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    said = textwrap.shorten(first_line, 300, placeholder=" …")
    return MergebenchError(f"{_place(part)} at {revision[:12]} could not be read: {said}")


def _from_url(url: str, sha256: str, loaded: Loaded) -> list[Record]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / url.rpartition("/")[2]
        fetch_url(url, sha256, path)
        loaded.files[url] = sha256
        return readers.read(path)
