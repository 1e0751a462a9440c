"""What the tests of the engine share: small pieces, and comparisons of whole folders."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mergebench.checkpoints import digest
from mergebench.merging import directions, emit, outputs, passes
from mergebench.vectors import measure, walk

MODULES = (directions, emit, outputs, passes, measure, walk)


def set_pieces(monkeypatch: pytest.MonkeyPatch, block: int, chunk: int) -> None:
    """Cut tensors into blocks and chunks of so many entries, everywhere."""
    for module in MODULES:
        if hasattr(module, "BLOCK"):
            monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(walk, "CHUNK", chunk)
    monkeypatch.setattr(digest, "PIECE", chunk)


def weights(folder: Path) -> dict[str, str]:
    """File -> digest of its content, for the weights of a checkpoint."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.safetensors*"))}
