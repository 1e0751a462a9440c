"""Write a checkpoint in pieces, by several threads, so that a killed process can go on: a stable folder with a journal.

Every finished file is a line of the journal, with the digests of its tensors. Taking the folder up again compares the files with these
digests; what does not agree, and the file that was being written, is written anew. Nothing depends on what a killed process left
elsewhere in the folder.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mergebench.artifacts import sha256_json
from mergebench.checkpoints.digest import values_digest
from mergebench.checkpoints.layout import Dtype, Layout, copy_other_files, write_index
from mergebench.checkpoints.reader import Checkpoint
from mergebench.checkpoints.tensorfile import ITEM_BYTES, TensorFile
from mergebench.checkpoints.vocabulary import Rows
from mergebench.errors import MergebenchError

JOURNAL = "journal.jsonl"


class ShardFolder:
    """The files of one checkpoint in the making.

    Args:
        base: Where the other files (configuration, tokenizer) come from.
        layout: Files, headers and places.
        folder: The stable folder, created if absent; it belongs to this writer alone.
        recipe: All that decides the bytes; a folder of another recipe is emptied.
        dtype, rows: See `copy_other_files`.

    Attributes:
        finished: File -> what was recorded with it, for the files that are complete.
    """

    def __init__(
        self,
        base: Checkpoint,
        layout: Layout,
        folder: Path,
        *,
        recipe: Mapping[str, Any],
        dtype: Dtype = "base",
        rows: Rows | None = None,
    ) -> None:
        self.base, self.layout, self.folder, self.dtype, self.rows = base, layout, folder, dtype, rows
        self._identity = sha256_json({"recipe": dict(recipe), "headers": {f: h.hex() for f, h in layout.headers.items()}})
        self._open: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.finished = self._resume()

    def begin(self, file: str) -> None:
        """Create a file with its header and its full size; several may be open at once."""
        self._open[file] = os.open(self._partial(file), os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o644)
        self._write(file, self.layout.headers[file], 0)
        os.ftruncate(self._open[file], self.layout.sizes[file])

    def put(self, name: str, start: int, values: np.ndarray) -> None:
        """Write entries of the flattened tensor `name` from `start` on, in their stored form. Any thread, any order."""
        slot = self.layout.slots[name]
        self._write(slot.file, values.view(np.uint8).data, slot.offset + start * ITEM_BYTES[slot.info.dtype])

    def end(self, file: str, record: Mapping[str, Any]) -> None:
        """Close a file and record it.

        Args:
            file: The file; all its tensors have been written.
            record: What to keep with it: {"digests": {tensor name: digest}, ...}.
        """
        os.close(self._open.pop(file))
        os.replace(self._partial(file), self.folder / file)
        self.finished[file] = dict(record)
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(json.dumps({"file": file, **record}) + "\n")
            journal.flush()
            os.fsync(journal.fileno())

    def abandon(self) -> None:
        """Close the files that are being written without recording them."""
        while self._open:
            os.close(self._open.popitem()[1])

    def publish(self, target: Path) -> None:
        """Make the complete checkpoint appear in `target`: the weights first, `config.json`, without which there is no model, last."""
        target.mkdir(parents=True, exist_ok=True)
        for file in self.layout.headers:
            _link(self.folder / file, target / file)
        write_index(self.layout, target)
        copy_other_files(self.base, target, self.dtype, self.rows)

    def _partial(self, file: str) -> Path:
        return self.folder / f"{file}.partial"

    def _write(self, file: str, content: bytes | memoryview, offset: int) -> None:
        view = memoryview(content)
        try:
            while view:
                written = os.pwrite(self._open[file], view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise MergebenchError(
                f"Cannot write {self.folder / file}: {error.strerror}. Make room, then run the same command again."
            ) from error

    def _resume(self) -> dict[str, dict[str, Any]]:
        """The files that an earlier process has finished, checked; the journal is written anew with these alone."""
        finished = {}
        for line in self._journal():
            file = line.pop("file")
            if file in self.layout.headers and self._sound(file, line["digests"]):
                finished[file] = line
        journal = self.folder / JOURNAL
        temporary = journal.with_suffix(".tmp")
        lines = [{"identity": self._identity}, *({"file": file, **record} for file, record in finished.items())]
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        os.replace(temporary, journal)
        for path in self.folder.glob("*.safetensors*"):
            if path.name not in finished:
                path.unlink()
        return finished

    def _journal(self) -> list[dict[str, Any]]:
        try:
            text = (self.folder / JOURNAL).read_text(encoding="utf-8")
            lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        except (OSError, ValueError):
            return []
        return lines[1:] if lines and lines[0] == {"identity": self._identity} else []

    def _sound(self, file: str, digests: Mapping[str, str]) -> bool:
        try:
            found = TensorFile(self.folder / file)
        except MergebenchError:
            return False
        return all(
            name in found.tensors and digests.get(name) == values_digest(found.values(name), found.tensors[name].size)
            for name in self.layout.names(file)
        )


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system cannot."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
