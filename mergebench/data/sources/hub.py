"""Rows from the Hugging Face hub, and from pinned files of the authors' repositories. Used in fetch jobs only.

The commit of every hub dataset is looked up once, everything is read at that commit, and the manifest records it. Files
from other addresses are pinned by commit and SHA-256 in the catalogue.
"""

import fnmatch
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from mergebench.artifacts import sha256_file
from mergebench.data import readers
from mergebench.data.convert import HUB, convert
from mergebench.data.records import Record
from mergebench.data.sources.loaded import Loaded
from mergebench.data.sources.refusals import explained, gated
from mergebench.errors import MergebenchError


def load(dataset: str, entry: dict[str, Any], seed: int) -> Loaded:
    """Fetch every part of a dataset.

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
        revision = loaded.revisions.get(part["id"]) or commit(part, entry["gated"])
        loaded.revisions[part["id"]] = revision
        parts[name] = _from_files(part, revision, loaded) if "file" in part else _from_split(part, revision)
    loaded.rows = convert(dataset, HUB, parts, seed)
    return loaded


def commit(part: dict[str, str], is_gated: bool) -> str:
    """The commit to read a part's dataset at: the catalogue's revision, or the newest one."""
    from huggingface_hub import get_token

    if is_gated and not get_token():
        raise gated("dataset", part["id"])
    with explained("dataset", part["id"]):
        return dataset_commit(part["id"], part.get("revision"))


def dataset_commit(identifier: str, revision: str | None) -> str:
    """Ask the hub which commit a revision (None: the default branch) is."""
    from huggingface_hub import HfApi

    sha = HfApi().dataset_info(identifier, revision=revision).sha
    if sha is None:
        raise MergebenchError(f"The hub did not say at which commit {identifier} is; try again later.")
    return sha


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
    records = []
    for name in wanted:
        with explained("dataset", part["id"]):
            path = download(part["id"], name, revision)
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
