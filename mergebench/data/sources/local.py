"""Rows from files as their authors publish them, below one data folder."""

from pathlib import Path
from typing import Any

from mergebench.artifacts import sha256_file
from mergebench.data import readers
from mergebench.data.convert import LOCAL, convert
from mergebench.data.records import Parts
from mergebench.data.sources.loaded import Loaded
from mergebench.errors import MergebenchError


def load(dataset: str, entry: dict[str, Any], root: Path, seed: int) -> Loaded:
    """Read every part of a dataset that is there.

    Args:
        dataset: the dataset's name.
        entry: its entry in the catalogue.
        root: the data folder; file names are relative to it.
        seed: decides what is drawn at random, where the dataset needs it.

    Raises:
        MergebenchError: the folder or a file that is needed is absent, or a file is not as published.
    """
    paths, absent = files(dataset, entry, root)
    header = entry["local"].get("header")
    parts: Parts = {name: readers.read(path, header) for name, path in paths.items()}
    notes = [entry["local"]["note"]] if "note" in entry["local"] else []
    return Loaded(
        rows=convert(dataset, LOCAL, parts, seed),
        files={path.relative_to(root).as_posix(): sha256_file(path) for path in paths.values()},
        notes=notes + [f"absent: {name}" for name in absent],
    )


def files(dataset: str, entry: dict[str, Any], root: Path) -> tuple[dict[str, Path], list[str]]:
    """The file of every part that is there, and the names of the optional files that are not."""
    if not root.is_dir():
        raise MergebenchError(f"The data folder {root} does not exist; set data.root to the folder with the datasets' files.")
    layout = entry["local"]
    if "glob" in layout:
        found = {path.stem: path for path in sorted(root.glob(layout["glob"]))}
        if not found:
            raise _absent(dataset, entry, root, [layout["glob"]])
        return found, []
    present: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for part, names in layout["parts"].items():
        candidates = [names] if isinstance(names, str) else names
        path = next((root / name for name in candidates if (root / name).is_file()), None)
        if path is None:
            missing[part] = candidates[0]
        else:
            present[part] = path
    required = [missing[part] for part in missing if part not in layout.get("optional", [])]
    if required or not present:
        raise _absent(dataset, entry, root, required or list(missing.values()))
    return present, list(missing.values())


def _absent(dataset: str, entry: dict[str, Any], root: Path, names: list[str]) -> MergebenchError:
    return MergebenchError(
        f"{dataset} ({entry['title']}) is not in the data folder {root}: expected {', '.join(names)} with "
        f"{', '.join(entry['columns'])}. Put it there as its authors publish it, or set data.sources.{dataset} to hub or tiny."
    )
