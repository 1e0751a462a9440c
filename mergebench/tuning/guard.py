"""Tuning sees surrogates and nothing else: the data among a job's inputs are checked, and files of benchmarks cannot be opened.

What is refused while `surrogates_only` is entered, in all threads of the process: opening any file of a dataset that is not
among the job's inputs, of scores, answers, labels and results other than the references given, below ``MERGEBENCH_REAL_DATA``, and in
the hub's caches of datasets.

Covered are files opened through Python (`open`, `os.open`, `io`, `pathlib`, `sqlite3`), by whichever library. Not covered are files that
compiled code opens by itself (Arrow's and safetensors' readers when they are given a path) and other processes, such as the
vLLM engine: they are given the paths of weights alone.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergebench import catalogue
from mergebench.artifacts import Job, read_json
from mergebench.errors import MergebenchError
from mergebench.merging.statistics.calibration import FILE as CALIBRATION

RELEASED = "released"
MEASURED = ("scores", "answers", "labels", "official", "tables", "figures", "report")
"""Folders of a campaign's results that hold what models were measured with."""

REAL_DATA = "MERGEBENCH_REAL_DATA"
CACHED_DATASET = f"{os.sep}datasets--"
"""How the hub's cache names the folder of a dataset."""


@dataclass(frozen=True)
class Fence:
    """Which of two kinds of folders a file lies in; the innermost decides. Paths are absolute, without links; folders end in a slash."""

    forbidden: tuple[str, ...]
    allowed: tuple[str, ...]

    def refuses(self, path: str) -> bool:
        """Whether a file must not be opened."""
        forbidden = max((len(folder) for folder in self.forbidden if path.startswith(folder)), default=0)
        forbidden = max(forbidden, path.find(CACHED_DATASET) + 1)
        allowed = (len(known) for known in self.allowed if path == known or (known.endswith(os.sep) and path.startswith(known)))
        return forbidden > max(allowed, default=0)


_FENCES: list[Fence] = []
_HOOKED: list[bool] = []


@contextlib.contextmanager
def surrogates_only(job: Job) -> Iterator[None]:
    """Check the data of a tuning job, and refuse to open those of benchmarks while entered.

    Raises:
        MergebenchError: a dataset among the inputs is no surrogate, or is a benchmark's under another name.
    """
    for manifest in job.paths("data"):
        check_role(manifest, job.spec["evaluation"]["benchmarks"])
    if not _HOOKED:
        sys.addaudithook(_watch)  # hooks cannot be removed, so there is one, which looks at the fences
        _HOOKED.append(True)
    fence = around(job)
    _FENCES.append(fence)
    try:
        yield
    finally:
        _FENCES.remove(fence)


def check_role(manifest: Path, settings: dict[str, dict[str, Any]]) -> None:
    """Refuse a dataset that is no surrogate, by its name, by its manifest, and by where its rows come from.

    Args:
        manifest: of the dataset.
        settings: of the surrogates in this job; ``protocol`` is where the released one must have been asked for by name.
    """
    name = manifest.parent.name
    known = catalogue.datasets().get(name, {})
    made = read_json(manifest).get("spec") or {}
    entry = made.get("entry") or known
    uses = {known.get("use", "surrogate"), entry.get("use", "surrogate")}
    if uses != {"surrogate"} or made.get("dataset", name) != name:
        raise MergebenchError(
            f"{manifest} is among the data of tuning, but it is {made.get('dataset', name)}, a {', '.join(sorted(uses))} set; tuning reads "
            "surrogates only."
        )
    if known and _plain(entry) != _plain(known) and settings.get(name, {}).get("protocol") != RELEASED:
        raise MergebenchError(
            f"{manifest} was made from {entry.get('title')}, not from the surrogate {name} of the catalogue; a surrogate that is a "
            "benchmark's test set must be asked for by name, with evaluation.protocol: released."
        )


def around(job: Job) -> Fence:
    """The fence of a job: datasets and results beside those that it was given."""
    manifests = [path.resolve() for path in job.paths("data")]
    data = {manifest.parent.parent for manifest in manifests}
    measured = {folder.parent / name for folder in data for name in MEASURED}
    forbidden = [*data, *measured, *([Path(os.environ[REAL_DATA]).resolve()] if os.environ.get(REAL_DATA) else [])]
    folders = [*(manifest.parent for manifest in manifests), job.state.resolve(), job.state.resolve().parent / "labels"]
    files = [path.resolve() for name in job.inputs for path in job.paths(name)]
    files += [manifest.resolve().with_name(CALIBRATION) for manifest in job.paths("calibration")]
    outputs = [path.resolve().parent for path in job.outputs.values()]
    return Fence(
        tuple(f"{folder}{os.sep}" for folder in forbidden),
        (*(f"{folder}{os.sep}" for folder in [*folders, *(f for f in files if f.is_dir()), *outputs]), *map(str, files)),
    )


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _FENCES and event in ("open", "sqlite3.connect") and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if any(fence.refuses(path) for fence in _FENCES):
            raise MergebenchError(
                f"tuning has tried to open {path}, which is no surrogate's; it must not see what methods are measured with."
            )


def _plain(entry: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in entry.items() if key != "filter"}, sort_keys=True)
