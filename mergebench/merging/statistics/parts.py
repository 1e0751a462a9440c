"""The finished parts of a statistic and the sums in progress, kept in a job's state so that a later attempt goes on.

A part is the result of one unit of work (a group of tensors), in a file of its own. When all units are done, `Parts.join` makes one
file of them, tensor by tensor. A file appears under its name complete, and is believed only if it was written for the same `key`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergebench.checkpoints.tensorfile import TensorFile, TensorInfo
from mergebench.checkpoints.tensorwriter import TensorWriter, save_tensors
from mergebench.errors import MergebenchError
from mergebench.merging.statistics.packing import pack, packed_size
from mergebench.merging.statistics.store import HEADER as STATISTICS
from mergebench.merging.statistics.store import header

if TYPE_CHECKING:
    import torch

HEADER = "part"
PIECE = 1 << 22  # entries that are copied at once: whole bytes of bits


class Parts:
    """Files of one statistic in progress.

    Args:
        folder: Where they lie; what was left there for another key is removed.
        key: A digest of everything that decides the result.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = Path(folder) / key[:16]
        self.key = key

    def begin(self) -> None:
        """Make the folder, and remove what was left for other keys and what was being written; for the main process, once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for other in self.folder.parent.iterdir():
            if other != self.folder and other.is_dir():
                shutil.rmtree(other)
        for partial in self.folder.glob("*.tmp-*"):
            partial.unlink()

    def has(self, unit: str) -> bool:
        """Whether this unit is finished."""
        return self._open(f"{unit}.part") is not None

    def facts(self, unit: str) -> dict[str, Any]:
        """What `save` was told of a finished unit."""
        return self._finished(unit)[1]

    def save(self, unit: str, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any] | None = None) -> None:
        """Keep the result of a unit; its state in progress is dropped."""
        self._write(f"{unit}.part", tensors, facts or {})
        self.drop(unit)

    def checkpoint(self, name: str, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Keep a state in progress, in place of the one before; `facts` say how far it goes."""
        self._write(f"{name}.state", tensors, facts)

    def resume(self, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The newest state in progress, its tensors mapped from the file: never write into them. None where there is none."""
        found = self._open(f"{name}.state")
        if found is None:
            return None
        file, facts = found
        return {tensor: file.tensor(tensor) for tensor in file.tensors}, facts

    def drop(self, name: str) -> None:
        """Forget a state in progress and those below it (`name/...`)."""
        (self.folder / f"{_slug(name)}.state").unlink(missing_ok=True)
        for path in self.folder.glob(f"{_slug(name + '/')}*.state"):
            path.unlink()

    def tensors(self, unit: str) -> TensorFile:
        """The file of a finished unit."""
        return self._finished(unit)[0]

    def join(self, path: Path, units: Sequence[str], facts: Mapping[str, Any], aliases: Mapping[str, str]) -> int:
        """Write the parts of all units into one statistics file, masks as bits; no tensor is in memory as a whole.

        Returns:
            The number of tensors.
        """
        files = [self.tensors(unit) for unit in units]
        infos = {name: info for file in files for name, info in file.tensors.items()}
        masks = {name: info.shape for name, info in infos.items() if info.dtype == "BOOL"}
        stored = infos | {name: TensorInfo("U8", (packed_size(infos[name].size),), 0, 0) for name in masks}
        if len(infos) != sum(len(file.tensors) for file in files):
            raise MergebenchError(f"{self.folder} has a tensor in two parts; delete the folder and run again.")
        with TensorWriter(path, stored, {STATISTICS: header(facts, aliases, masks)}) as writer:
            for file in files:
                for name, info in file.tensors.items():
                    for start in range(0, info.size, PIECE):
                        values = file.values(name, start, start + PIECE)
                        writer.append(name, pack(values) if name in masks else values)
        return len(infos)

    def _finished(self, unit: str) -> tuple[TensorFile, dict[str, Any]]:
        found = self._open(f"{unit}.part")
        if found is None:
            raise MergebenchError(f"{self.folder} has no finished part {unit!r}; run again.")
        return found

    def _open(self, name: str) -> tuple[TensorFile, dict[str, Any]] | None:
        path = self.folder / _slug(name)
        if not path.is_file():
            return None
        try:
            file = TensorFile(path)
            found = json.loads(file.metadata[HEADER])
            return (file, found["facts"]) if found["key"] == self.key else None
        except (MergebenchError, KeyError, TypeError, ValueError):
            return None

    def _write(self, name: str, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        path = self.folder / _slug(name)
        partial = path.with_name(f"{path.name}.tmp-{os.getpid()}")
        metadata = {HEADER: json.dumps({"key": self.key, "facts": dict(facts)}, sort_keys=True)}
        try:
            save_tensors(partial, tensors, metadata)
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)  # there only if the disk is full


def _slug(name: str) -> str:
    """A file name: slashes, which separate the levels of a name, become commas, and nothing else is special."""
    if not re.fullmatch(r"[A-Za-z0-9._/-]+", name):
        raise ValueError(f"{name!r} cannot name a part: letters, digits, '.', '_', '-' and '/' can")
    return name.replace("/", ",")
