"""Digests of checkpoints: which weights a score, a merge or a table was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import xxhash

from mergebench.artifacts import MANIFEST, damaged, read_json, sha256_file

# Entries per piece of a tensor's digest; changing it changes every digest.
PIECE = 1 << 20


class PieceDigest:
    """XXH3 digests of the pieces of a tensor, or of a part of one that starts with a piece, from bytes that come in order.

    Args:
        item: Bytes per entry.
    """

    def __init__(self, item: int) -> None:
        self._size = PIECE * item
        self._left = self._size
        self._hash = xxhash.xxh3_128()
        self._finished: list[bytes] = []

    def update(self, values: np.ndarray) -> None:
        """Take the next values."""
        content = values.view(np.uint8)
        while content.size:
            part, content = content[: self._left], content[self._left :]
            self._hash.update(part.data)
            self._left -= part.size
            if not self._left:
                self._finished.append(self._hash.digest())
                self._hash, self._left = xxhash.xxh3_128(), self._size

    def digests(self) -> bytes:
        """The digests so far, one after the other; the last piece may be short."""
        return b"".join([*self._finished, self._hash.digest()] if self._left < self._size else self._finished)


def tensor_digest(pieces: Iterable[bytes]) -> str:
    """The 128-bit digest of a tensor from the digests of its pieces of `PIECE` entries, in order, in hex."""
    return xxhash.xxh3_128_hexdigest(b"".join(pieces))


def values_digest(values: np.ndarray, size: int) -> str:
    """The digest of a tensor of `size` entries, from its stored values or bytes."""
    content = values.view(np.uint8)
    pieces = PieceDigest(content.size // max(size, 1))
    pieces.update(content)
    return tensor_digest([pieces.digests()])


def realised_digest(tensors: Mapping[str, str]) -> str:
    """The digest of a whole model's weights from its tensors' digests, by name: equal for equal weights, however they are sharded."""
    return xxhash.xxh3_128_hexdigest("".join(f"{name}\0{tensors[name]}\n" for name in sorted(tensors)).encode())


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
