"""Labels that have been made, found again by the content of what was judged.

A line per label, appended under a lock and flushed; nothing is rewritten. A line that a kill left half-written is ignored,
and the next writer begins a new one. Where two writers labelled the same answer, the first line counts for everybody.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mergebench.artifacts import sha256_json
from mergebench.evaluation.safety.labels import Label, Request


class LabelStore:
    """The labels of one judge in a JSON Lines file, which several judges and processes may share.

    Args:
        path: of the file; it need not exist.
        judge: the judge's facts, of which all are part of a label's key.
    """

    def __init__(self, path: Path, judge: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = sha256_json(judge)
        self._labels: dict[str, Label] = {}
        self._made_by: dict[str, str] = {}
        self._engines: dict[str, dict[str, Any]] = {}
        self._offset = 0
        self.refresh()

    def key(self, request: Request) -> str:
        """Of a judge's label for a request: equal for equal texts, whichever model or benchmark they come from."""
        return sha256_json([self.identity, request.prompt, request.response, request.context])

    def get(self, key: str) -> Label | None:
        """The label under a key, if there is one."""
        return self._labels.get(key)

    def engines(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """What computed these labels (backend, versions), each once, in an order of its own."""
        made = {self._made_by[key] for key in keys if key in self._made_by}
        return [self._engines[name] for name in sorted(made & self._engines.keys())]

    def add(self, labels: Mapping[str, Label], engine: Mapping[str, Any] | None = None) -> None:
        """Append labels by key, and what computed them.

        Returns when they are on the disk. A full disk is an error, and leaves what was written before.
        """
        by = sha256_json(engine)[:16] if engine else None
        lines: list[Any] = [{"key": key, "by": by, **asdict(label)} for key, label in labels.items()]
        if by is not None and by not in self._engines:
            lines.insert(0, {"by": by, "engine": engine})
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        with open(descriptor, "r+b", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            size = stream.seek(0, os.SEEK_END)
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                text = b"\n" + text
            remaining = memoryview(text)
            while remaining:
                remaining = remaining[stream.write(remaining) :]
            os.fsync(descriptor)
        self.refresh()

    def refresh(self) -> None:
        """Read what has been appended since the last time, by anybody."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as stream:
            stream.seek(self._offset)
            text = stream.read()
        end = text.rfind(b"\n") + 1
        self._offset += end
        for line in text[:end].splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            found = json.loads(line)
            by = found.pop("by")
            if "engine" in found:
                self._engines[by] = dict(found["engine"])
            elif found["key"] not in self._labels:
                key = found.pop("key")
                self._labels[key] = Label(**found)
                if by is not None:
                    self._made_by[key] = by
        except (ValueError, TypeError, KeyError, AttributeError):
            return  # half-written by a process that was killed; its answer is judged again
