"""What a merge was made from, file by file."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xxhash

from mergebench.artifacts import CHUNK, MANIFEST, sha256_file
from mergebench.checkpoints.reader import Checkpoint, weight_files


def describe_inputs(models: Mapping[str, Checkpoint], *, recorded: bool, stop: threading.Event | None = None) -> dict[str, Any]:
    """Folder, and of every weights file size and digest, by model.

    Args:
        models: Name -> model.
        recorded: Take SHA-256 digests from where they were recorded, if the sizes agree, instead of reading the files: from a
            `manifest.json` of ours in or beside the folder, or from the name that a file has in Hugging Face's cache.
        stop: Set by another thread that no longer needs the answer.

    Returns:
        {name: {"folder": ..., "files": {file: {"bytes": ..., "sha256" or "xxh3_128": ...}}}}.
    """
    found: dict[str, Any] = {}
    for name, model in models.items():
        files = {}
        for path in weight_files(model.folder):
            known = recorded_sha256(path) if recorded else None
            files[path.name] = {"bytes": path.stat().st_size, **({"sha256": known} if known else {"xxh3_128": xxh3_file(path, stop)})}
        found[name] = {"folder": str(model.folder), "files": files}
    return found


def describe_outputs(folder: Path, *, threads: int) -> dict[str, Any]:
    """Size and SHA-256 of every file below a folder, by its path in it, as manifests list them."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(threads) as pool:
        digests = list(pool.map(sha256_file, paths))
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": digest}
        for path, digest in zip(paths, digests, strict=True)
    }


def recorded_sha256(path: Path) -> str | None:
    """The SHA-256 of a file that somebody recorded when it was made or fetched; None if nobody did, or for another size."""
    blob = path.resolve().name
    if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", blob):
        return blob
    return next((digest for digest in map(_listed, _manifests(path), [path, path]) if digest), None)


def xxh3_file(path: Path, stop: threading.Event | None = None) -> str:
    """The 128-bit XXH3 digest of a file, in hex: as fast as the file can be read, and no defence against forgery. `stop` ends it early."""
    digest = xxhash.xxh3_128()
    buffer = bytearray(CHUNK)
    with path.open("rb", buffering=0) as stream:
        while (count := stream.readinto(buffer)) and not (stop and stop.is_set()):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def _manifests(path: Path) -> Iterable[Path]:
    return path.parent / MANIFEST, path.parent.parent / MANIFEST


def _listed(manifest: Path, path: Path) -> str | None:
    try:
        facts = json.loads(manifest.read_text(encoding="utf-8"))["files"][path.relative_to(manifest.parent).as_posix()]
        return str(facts["sha256"]) if facts["bytes"] == path.stat().st_size else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
