"""Compare a checkpoint folder, file by file, with what its manifest recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mergebench.artifacts import sha256_file
from mergebench.errors import MergebenchError


def verify(folder: Path, manifest: Mapping[str, Any], *, content: bool = True) -> list[str]:
    """Find files of `folder` that were removed, truncated, changed or added since `manifest` was written.

    Args:
        folder: The checkpoint folder (`.../weights`).
        manifest: The content of the `manifest.json` beside it; its "files" are named "weights/...".
        content: Also hash files whose size is right. Without it the check is instant and finds what a crash leaves.

    Returns:
        One sentence per file that is wrong; an empty list when all is well.

    Raises:
        MergebenchError: The manifest lists no file of this folder, so that nothing can be said.
    """
    prefix = f"{folder.name}/"
    files = {name: facts for name, facts in manifest.get("files", {}).items() if name.startswith(prefix)}
    if not files:
        raise MergebenchError(f"The manifest beside {folder} lists none of its files; make the checkpoint again.")
    problems = [_problem(folder.parent / name, facts, content) for name, facts in sorted(files.items())]
    # Another weights file would be loaded with the rest.
    added = [path for path in sorted(folder.glob("*.safetensors")) if prefix + path.name not in files]
    return [*filter(None, problems), *(f"{path} is not in the manifest; remove it." for path in added)]


def _problem(path: Path, facts: Mapping[str, Any], content: bool) -> str | None:
    if not path.is_file():
        return f"{path} is missing."
    size = path.stat().st_size
    if size != facts["bytes"]:
        state = "truncated" if size < facts["bytes"] else "too long"
        return f"{path} is {state}: {size} bytes, {facts['bytes']} expected."
    if content and sha256_file(path) != facts["sha256"]:
        return f"{path} has changed: its sha256 is not {facts['sha256'][:12]}…"
    return None
