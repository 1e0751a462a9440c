"""Verdicts on programs, kept in a file while a job runs, so that a killed one goes on where it stopped."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Verdict:
    """Whether a program passed its tests, else why not."""

    passed: bool
    reason: str


class Store:
    """Verdicts by key, one line of JSON each; only ever appended to. A line that is no verdict is passed over.

    Args:
        path: the file, made when the first verdict comes; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.known: dict[str, Verdict] = {}
        torn = False
        if path is not None and path.is_file():
            data = path.read_bytes()
            torn = not data.endswith(b"\n") and data != b""
            for line in data.splitlines():
                self._take(line)
        self._prefix = b"\n" if torn else b""

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            key, passed, reason = entry["key"], entry["passed"], entry["reason"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return
        if isinstance(key, str) and isinstance(passed, bool) and isinstance(reason, str):
            self.known[key] = Verdict(passed, reason)

    def add(self, key: str, verdict: Verdict) -> None:
        """Keep a verdict; the death of this process cannot lose it any more."""
        self.known[key] = verdict
        if self.path is None:
            return
        line = json.dumps({"key": key, "passed": verdict.passed, "reason": verdict.reason}).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as stream:
            stream.write(self._prefix + line)
        self._prefix = b""
