"""What a job leaves behind: its outputs and the ends of its logs."""

import os
from typing import Any


def outputs_now(job: Any) -> dict[str, tuple[int, int] | None]:
    """Modification time (ns) and inode of every output of a job; None for one that is not there."""
    found: dict[str, tuple[int, int] | None] = {}
    for path in job.output:
        try:
            facts = os.stat(path)
            found[str(path)] = (facts.st_mtime_ns, facts.st_ino)
        except OSError:
            found[str(path)] = None
    return found


def tail(path: Any, size: int = 65_536) -> str | None:
    """The end of a text file, at most `size` bytes; None where it cannot be read."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - size))
            return stream.read().decode("utf-8", errors="replace")
    except (OSError, TypeError):
        return None


def last_lines(text: str, count: int) -> str:
    """The last `count` lines of a text that are not empty, indented."""
    return "\n".join(f"    {line}" for line in [line.rstrip() for line in text.splitlines() if line.strip()][-count:])
