"""Rows from the Hugging Face hub, and from pinned files of the authors' repositories. Used in fetch jobs only.

The commit of every hub dataset is looked up once and locked (`mergebench.hub.lock`), everything is read at that commit, every
file is compared with the hash that the hub names, and the manifest records the commit. Files from other addresses are
pinned by commit and SHA-256 in the catalogue.
"""

import fnmatch
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from mergebench.artifacts import sha256_file
from mergebench.data import readers
from mergebench.data.convert import HUB, convert, convert_training
from mergebench.data.records import Record
from mergebench.data.sources.loaded import Loaded
from mergebench.errors import MergebenchError
from mergebench.hub import lock as locking
from mergebench.hub.download import check_present, listing, newest
from mergebench.hub.refusals import explained, gated


def load(dataset: str, entry: dict[str, Any], seed: int, lock: Path | None = None) -> Loaded:
    """Fetch every part of a dataset, at the commits that the file `lock` names or gets.

    Raises:
        MergebenchError: the hub does not have the dataset, refuses it (gated), cannot be reached, or a file's
            SHA-256 is not the catalogue's.
    """
    if "hub" not in entry:
        raise MergebenchError(f"{dataset} ({entry['title']}) is not on the hub; set data.sources.{dataset} to local or tiny.")
    loaded = Loaded([])
    parts = {}
    for name, part in entry["hub"]["parts"].items():
        if "url" in part:
            parts[name] = _from_url(part["url"], part["sha256"], loaded)
            continue
        revision = loaded.revisions.get(part["id"]) or commit(part, entry["gated"], lock)
        loaded.revisions[part["id"]] = revision
        parts[name] = _from_files(part, revision, loaded) if "file" in part else _from_split(part, revision)
    for identifier in {part["id"] for part in entry["hub"]["parts"].values() if "split" in part}:
        verify(identifier, loaded.revisions[identifier])
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


def repository_files(identifier: str, revision: str) -> list[str]:
    """Names of all files of a hub dataset at a commit."""
    from huggingface_hub import HfApi

    return HfApi().list_repo_files(identifier, repo_type="dataset", revision=revision)


def download(identifier: str, name: str, revision: str) -> Path:
    """Fetch one file of a hub dataset at a commit."""
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(identifier, name, repo_type="dataset", revision=revision))


def split(identifier: str, config: str | None, name: str, revision: str) -> Any:
    """Fetch one split of a configuration of a hub dataset at a commit, as a `datasets.Dataset`."""
    import datasets

    return datasets.load_dataset(identifier, config, split=name, revision=revision)


def verify(identifier: str, revision: str) -> None:
    """Compare what the hub's cache holds of a dataset at a commit with the hashes that the hub names."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=identifier, repo_type="dataset")
    with explained("dataset", identifier):
        check_present(identifier, listing("dataset", identifier, revision), cache / "snapshots" / revision)


def open_url(url: str) -> bytes:
    """Fetch a file from an address other than the hub."""
    with urllib.request.urlopen(url, timeout=60) as response:
        content: bytes = response.read()
    return content


def _from_split(part: dict[str, str], revision: str) -> list[Record]:
    place = "/".join(filter(None, (part["id"], part.get("config"), part["split"])))
    try:
        table = split(part["id"], part.get("config"), part["split"], revision)
    except (OSError, ValueError, RuntimeError) as error:
        verify(part["id"], revision)  # a damaged file is not read as what it is, so this may be the better explanation
        raise MergebenchError(f"{place} at {revision[:12]} could not be read: {_first_line(error)}") from error
    if not len(table):
        raise MergebenchError(f"{place} at {revision[:12]} holds no records.")
    return [Record(values, f"{place}, row {number}") for number, values in enumerate(table, start=1)]


def _from_files(part: dict[str, str], revision: str, loaded: Loaded) -> list[Record]:
    with explained("dataset", part["id"]):
        names = repository_files(part["id"], revision)
    wanted = sorted(fnmatch.filter(names, part["file"]))
    if not wanted:
        shown = ", ".join(sorted(names)[:10])
        raise MergebenchError(f"{part['id']} at {revision[:12]} has no file {part['file']}; it has {shown}.")
    with explained("dataset", part["id"]):
        paths = {name: download(part["id"], name, revision) for name in wanted}
    verify(part["id"], revision)
    records = []
    for name, path in paths.items():
        loaded.files[f"{part['id']}/{name}"] = sha256_file(path)
        records += readers.read(path)
    return records


def _from_url(url: str, sha256: str, loaded: Loaded) -> list[Record]:
    name = url.rpartition("/")[2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        try:
            path.write_bytes(open_url(url))
        except (urllib.error.URLError, OSError) as error:
            raise MergebenchError(f"{url} could not be fetched ({error}); try again, or use the local source.") from error
        if (found := sha256_file(path)) != sha256:
            raise MergebenchError(f"{url} has SHA-256 {found[:12]}…, the catalogue expects {sha256[:12]}…: fetch it again.")
        loaded.files[url] = sha256
        return readers.read(path)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
