"""A judge that is asked about equal texts once, by whichever job they were asked for before."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mergebench.artifacts import sha256_json
from mergebench.evaluation.safety.labels import Judge, Label, Request, is_empty
from mergebench.evaluation.safety.store import LabelStore
from mergebench.fingerprint import fingerprint

# Requests between two writes of labels, by backend: enough to fill an engine, few enough that a kill loses little.
BLOCK = {"vllm": 2048, "transformers": 128}
WITHOUT_MODEL = 1 << 20

Progress = Callable[[int, int, str], None]
Check = Callable[[Sequence[Label], int], None]


class Remembering:
    """Keeps the labels of a judge in a folder as they are made.

    Args:
        judge: who is asked what is not known yet.
        folder: of files of labels, one per judge; jobs may share it.
        progress: called with done, total and what is being done.
        check: called with the labels known so far of the present requests and their number, before the first is asked and
            after every block; it raises to stop.
    """

    def __init__(self, judge: Judge, folder: Path, *, progress: Progress | None = None, check: Check | None = None) -> None:
        self.name, self.reads, self.code = judge.name, judge.reads, judge.code
        self.progress = progress
        self._judge, self._check = judge, check
        # What reads the judge's words is part of who it is.
        identity = {**judge.facts(), "code": fingerprint(*judge.code)}
        self.store = LabelStore(folder / f"{judge.name}-{sha256_json(identity)[:16]}.jsonl", identity)
        self._block = BLOCK.get(str(identity.get("backend")), WITHOUT_MODEL)

    def facts(self) -> dict[str, Any]:
        return self._judge.facts()

    def judge(self, requests: Sequence[Request]) -> list[Label]:
        """A label for each request; those that are new are asked in blocks, and each block is on the disk before the next.

        Raises:
            MergebenchError: `check` says so; the labels made so far are kept.
        """
        self.store.refresh()
        keys = [self.store.key(request) for request in requests]
        unique = _ordered(dict(zip(keys, requests, strict=True)))
        self._make(unique)
        return [replace(self._known(key), empty=is_empty(request.response)) for key, request in zip(keys, requests, strict=True)]

    def engines(self, requests: Iterable[Request]) -> list[dict[str, Any]]:
        """What computed the labels of these requests; empty for a judge that is no model."""
        return self.store.engines(self.store.key(request) for request in requests)

    def close(self) -> None:
        """Free what the judge holds."""
        if hasattr(self._judge, "close"):
            self._judge.close()

    def _make(self, unique: Mapping[str, Request]) -> None:
        new = [key for key in unique if self.store.get(key) is None]
        done = len(unique) - len(new)
        self._report(done, len(unique), unique)
        for start in range(0, len(new), self._block):
            block = new[start : start + self._block]
            if hasattr(self._judge, "progress"):
                self._judge.progress = self._inner(done, len(unique))
            labels = self._judge.judge([unique[key] for key in block])
            engine = self._judge.engine() if hasattr(self._judge, "engine") else None
            self.store.add(dict(zip(block, labels, strict=True)), engine)
            done += len(block)
            self._report(done, len(unique), unique)

    def _report(self, done: int, total: int, unique: Mapping[str, Request]) -> None:
        if self.progress is not None:
            self.progress(done, total, "distinct answers judged")
        if self._check is not None:
            self._check([label for key in unique if (label := self.store.get(key)) is not None], total)

    def _inner(self, before: int, total: int) -> Progress:
        def report(done: int, of: int, what: str) -> None:
            # The last request of a block is reported when its labels are on the disk.
            if self.progress is not None and done < of:
                self.progress(before + done, total, "distinct answers judged")

        return report

    def _known(self, key: str) -> Label:
        label = self.store.get(key)
        assert label is not None  # every request has been judged
        return label


def _ordered(requests: Mapping[str, Request]) -> dict[str, Request]:
    """Ordered by prompt: prompts that begin alike share cached work."""
    return dict(sorted(requests.items(), key=lambda pair: (pair[1].prompt, pair[1].context, pair[1].response)))
