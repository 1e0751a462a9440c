"""Ask a program and keep whatever it answers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """Exit status and output of a program; `status` is None if it is not installed or did not answer in time."""

    status: int | None
    out: str = ""
    error: str = ""

    @property
    def good(self) -> bool:
        """Whether the program ended well."""
        return self.status == 0

    @property
    def sentence(self) -> str:
        """The most telling line of what went wrong."""
        lines = [line.strip() for line in (self.error or self.out).splitlines() if line.strip()]
        return lines[-1] if lines else f"exit status {self.status}"


def ask(command: Sequence[str], *, seconds: float = 20, given: str | None = None) -> Answer:
    """Run a program to its end, with `given` on its standard input."""
    if shutil.which(command[0]) is None:
        return Answer(None, error=f"{command[0]} is not installed")
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds, check=False, errors="replace")
    except subprocess.TimeoutExpired:
        return Answer(None, error=f"{command[0]} gave no answer within {seconds:g} s")
    return Answer(done.returncode, done.stdout, done.stderr)
