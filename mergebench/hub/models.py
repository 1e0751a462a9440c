"""A model of the hub as a folder: the commit from the lock, the wanted files, verified."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from mergebench.artifacts import Job
from mergebench.errors import MergebenchError
from mergebench.hub import download, lock
from mergebench.hub.refusals import explained

FOLDER = "download"  # in the job's state: what a killed attempt has fetched stays there for the next one


def fetch_model(job: Job, name: str, revision: str | None, patterns: Sequence[str]) -> tuple[str, Path]:
    """Fetch the files of a model that match `patterns`; returns the commit and the folder, which is part of the job's state.

    Raises:
        MergebenchError: the hub refuses, the model has no weights in safetensors, the disk is too small, a file is not what the
            hub says.
    """
    with explained("model", name):
        commit = lock.commit(job.hub_lock, "model", name, revision, lambda n, r: download.newest("model", n, r))
        listed = download.listing("model", name, commit)
        wanted = download.matching(listed, patterns)
        _require_safetensors(name, commit, wanted, listed)
        folder = job.state / FOLDER / commit
        download.fetch("model", name, commit, wanted, folder, job.progress)
    return commit, folder


def place(source: Path, target: Path) -> None:
    """Give `target` the content of `source`: another name of the same file where the file system can, else a copy.

    A move would leave nothing behind for the next attempt if this one is killed before it publishes.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _require_safetensors(name: str, commit: str, wanted: list[download.Remote], listed: list[download.Remote]) -> None:
    if any(file.name.endswith(".safetensors") for file in wanted):
        return
    pickled = [file.name for file in listed if file.name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if pickled:
        raise MergebenchError(
            f"{name} at {commit[:12]} has its weights only as {pickled[0]}, a format that can run code when it is read: "
            "convert it to safetensors, and name the folder."
        )
    raise MergebenchError(f"{name} at {commit[:12]} has no weights in safetensors; check that it is the model that you want.")
