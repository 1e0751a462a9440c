"""Digests of checkpoints: which weights a score, a merge or a table was made from."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mergebench.artifacts import MANIFEST, damaged, read_json, sha256_file


def weights_digest(folder: Path) -> str:
    """The digest of a checkpoint's weights: sha256 over its safetensors files' names and contents, in name order."""
    return _combine({path.name: sha256_file(path) for path in folder.glob("*.safetensors")})


def recorded_weights_digest(folder: Path) -> str:
    """`weights_digest`, from the manifest beside the folder where its files still have the recorded sizes.

    A merge has six inputs; hashing them again would read as many bytes as the merge itself.
    """
    manifest = folder.parent / MANIFEST
    if not manifest.is_file() or damaged(manifest):
        return weights_digest(folder)
    recorded = {
        name.removeprefix(f"{folder.name}/"): facts["sha256"]
        for name, facts in read_json(manifest)["files"].items()
        if name.startswith(f"{folder.name}/")
    }
    weights = {name: digest for name, digest in recorded.items() if name.endswith(".safetensors") and "/" not in name}
    return _combine(weights) if weights else weights_digest(folder)


def _combine(digests: dict[str, str]) -> str:
    # A digest of the files' digests: it can be had from a manifest without reading the weights.
    lines = (f"{name}\0{digests[name]}\n" for name in sorted(digests))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
