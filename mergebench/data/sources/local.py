"""Rows from files as their authors publish them, below one data folder."""

from pathlib import Path
from typing import Any

from mergebench.artifacts import sha256_file
from mergebench.data import readers
from mergebench.data.convert import LOCAL, convert, convert_training
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
    if found := published(entry, root):
        records: Parts = {part: [record for path in paths for record in readers.read(path)] for part, paths in found.items()}
        rows, tallies = convert_training(dataset, entry, records)
        return Loaded(rows, files=_hashes([path for paths in found.values() for path in paths], root), tallies=tallies)
    paths, absent = files(dataset, entry, root)
    header = entry["local"].get("header")
    parts: Parts = {name: readers.read(path, header) for name, path in paths.items()}
    notes = [entry["local"]["note"]] if "note" in entry["local"] else []
    return Loaded(
        rows=convert(dataset, LOCAL, parts, seed),
        files=_hashes(list(paths.values()), root),
        notes=notes + [f"absent: {name}" for name in absent],
    )


def files(dataset: str, entry: dict[str, Any], root: Path) -> tuple[dict[str, Path], list[str]]:
    """The file of every part that is there, and the names of the optional files that are not."""
    if not root.is_dir():
        raise MergebenchError(f"The data folder {root} does not exist; set data.root to the folder with the datasets' files.")
    if whole := published(entry, root):
        return {f"{part}/{path.name}": path for part, paths in whole.items() for path in paths}, []
    layout = entry["local"]
    if "glob" in layout:
        found = {path.stem: path for path in sorted(root.glob(layout["glob"]))}
        if not found:
            raise _absent(dataset, entry, root, [layout["glob"]])
        return found, []
    present: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for part, names in layout.get("parts", layout.get("published", {})).items():
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


def present(dataset: str, entry: dict[str, Any], root: Path) -> bool:
    """Whether the files of an entry are there."""
    try:
        files(dataset, entry, root)
    except MergebenchError:
        return False
    return True


def everything(dataset: str, entry: dict[str, Any], root: Path) -> list[Path]:
    """All files that a dataset is made from: those of its rows, and those of its worked examples and support where they are there."""
    found = list(files(dataset, entry, root)[0].values())
    if "examples" in entry and present(dataset, {**entry, **entry["examples"]}, root):
        found += files(dataset, {**entry, **entry["examples"]}, root)[0].values()
    found += [root / part["local"] for part in entry.get("support", {}).values() if (root / part["local"]).is_file()]
    return sorted(found)


def published(entry: dict[str, Any], root: Path) -> dict[str, list[Path]]:
    """The files of every part of a training set as its authors publish it; empty, if a part is not there."""
    found = {part: sorted(root.glob(pattern)) for part, pattern in entry["local"].get("published", {}).items()}
    return found if all(found.values()) else {}


def _hashes(paths: list[Path], root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in paths}


def _absent(dataset: str, entry: dict[str, Any], root: Path, names: list[str]) -> MergebenchError:
    return MergebenchError(
        f"{dataset} ({entry['title']}) is not in the data folder {root}: expected {', '.join(names)} with "
        f"{', '.join(entry['columns'])}. Put it there as its authors publish it, or set data.sources.{dataset} to hub or tiny."
    )
