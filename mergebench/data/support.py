"""Files that scoring needs besides a dataset's rows, such as NLTK's sentence models for IFEval."""

import shutil
from pathlib import Path
from typing import Any

from mergebench.artifacts import sha256_file
from mergebench.data.sources import hub
from mergebench.data.sources.loaded import Loaded
from mergebench.errors import MergebenchError


def bring(wanted: dict[str, dict[str, str]], spec: dict[str, Any], folder: Path, loaded: Loaded) -> None:
    """Put files into `folder`, each with the SHA-256 that the catalogue names; generated rows need none.

    Args:
        wanted: path below `folder` -> {url, sha256, local}.
        spec: of the job; its source decides where they come from: `url` (hub), or `local`, below the data folder.
        folder: where to.
        loaded: gets their hashes, and a note for each that the data folder lacks.

    Raises:
        MergebenchError: a file cannot be fetched, or is not what the catalogue says.
    """
    for name, part in wanted.items():
        target = folder / name
        if spec["source"] == "hub":
            target.parent.mkdir(parents=True, exist_ok=True)
            hub.fetch_url(part["url"], part["sha256"], target)
            loaded.files[part["url"]] = part["sha256"]
        elif spec["source"] == "local" and (Path(spec["root"]) / part["local"]).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_checked(Path(spec["root"]) / part["local"], part), target)
            loaded.files[part["local"]] = part["sha256"]
        elif spec["source"] == "local":
            loaded.notes.append(f"absent: {part['local']}, which is {part['url']}")


def _checked(path: Path, part: dict[str, str]) -> Path:
    """The path of a file that has the catalogue's SHA-256."""
    if (found := sha256_file(path)) == part["sha256"]:
        return path
    raise MergebenchError(
        f"{path} has SHA-256 {found[:12]}…, the catalogue expects {part['sha256'][:12]}…: fetch it again from {part['url']}."
    )
