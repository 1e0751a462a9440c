"""Files of a dataset of the hub at a commit: which ones a split is made of, and fetching them into the hub's cache.

The cache is the one of `huggingface_hub` (HF_HUB_CACHE): what other programs have fetched is used, and a file serves all jobs and
runs. `datasets.load_dataset` would bring all splits of a configuration, and each file from its first byte after a kill; here only
the files of the split are fetched, through `download`.
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mergebench.errors import MergebenchError
from mergebench.hub import download
from mergebench.hub.lock import alone
from mergebench.hub.refusals import explained


@dataclasses.dataclass(frozen=True)
class Split:
    """A split as the dataset's card, or the layout of its files, defines it.

    Attributes:
        files: names in the repository, in order.
        reader: the module of `datasets` that reads them, such as ``parquet``.
        options: of the reader, where the card sets any.
        features: the columns' types, where the card states them.
    """

    files: tuple[str, ...]
    reader: str
    options: dict[str, Any]
    features: Any


def find_split(name: str, config: str | None, split: str, commit: str) -> Split:
    """What a split of a configuration (None: the default one) of a dataset consists of; its data is not fetched.

    Raises:
        MergebenchError: there is no such split, or it is made of files that are not the dataset's own.
        ValueError, OSError, RuntimeError: `datasets` finds no such configuration, or does not understand the dataset.
    """
    import datasets

    builder = datasets.load_dataset_builder(name, config, revision=commit)
    config_files = builder.config.data_files or {}
    if split not in config_files:
        has = ", ".join(map(str, config_files))
        raise MergebenchError(f"{name} at {commit[:12]} has no split {split!r} in its configuration {builder.config.name}; it has {has}.")
    own = f"hf://datasets/{name}@{commit}/"
    files = [str(file) for file in config_files[split]]
    if foreign := [file for file in files if not file.startswith(own)]:
        raise MergebenchError(
            f"{name} at {commit[:12]}: its split {split} is made of {foreign[0]}, which is not a file of that commit, "
            f"so nothing says what its content must be. Fetch it yourself and use the local source."
        )
    return Split(
        files=tuple(file.removeprefix(own) for file in files),
        reader=type(builder).__module__.rpartition(".")[2],
        options=_options(builder.config),
        features=builder.info.features,
    )


def _options(config: Any) -> dict[str, Any]:
    """What the configuration of a reader sets besides what every reader has."""
    import datasets

    general = {field.name for field in dataclasses.fields(datasets.BuilderConfig)} | {"features"}
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in general and getattr(config, field.name) != field.default
    }


def read_split(split: Split, name: str, paths: list[Path]) -> Any:
    """The rows of a split from its files on this machine, as a `datasets.Dataset`."""
    import datasets

    files = {name: [str(path) for path in paths]}
    return datasets.load_dataset(split.reader, data_files=files, split=name, features=split.features, **split.options)


def fetch_files(name: str, commit: str, files: list[download.Remote], progress: Callable[[float, float, str], object]) -> dict[str, Path]:
    """Bring files of a dataset into the hub's cache, and compare those that are there already with the hub's hashes.

    Returns:
        Where each file is, by its name.

    Raises:
        MergebenchError: the hub refuses, the disk is too small, or a file is not what the hub says.
    """
    folder = snapshot(name, commit)
    # Several jobs read the same dataset, and two that fetch one file would write into each other's.
    with alone(folder.parents[1] / "mergebench", f"waiting for another job that fetches {name}"), explained("dataset", name):
        for damaged in download.remove_damaged(files, folder):
            print(f"{damaged} of {name} in {folder} differs from the hash that the hub names; it is fetched again", file=sys.stderr)
        download.fetch("dataset", name, commit, files, folder, progress, "HF_HUB_CACHE")
    return {file.name: folder / file.name for file in files}


def snapshot(name: str, commit: str) -> Path:
    """The folder of the hub's cache for a dataset at a commit."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="dataset") / "snapshots" / commit
