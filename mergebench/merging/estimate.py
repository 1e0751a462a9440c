"""What a merge will cost, before it starts: bytes to read and to write, memory, time."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mergebench.checkpoints.layout import Layout
from mergebench.checkpoints.tensorfile import ITEM_BYTES
from mergebench.merging.cuts import Cuts
from mergebench.merging.models import Models
from mergebench.merging.passes import blocks
from mergebench.merging.plan import Recipe
from mergebench.merging.registry import Method, get
from mergebench.merging.scope import names_in_scope
from mergebench.vectors.walk import BLOCK, CHUNK, Chunk

# The interpreter, numpy and the compiled kernels, and with them torch, in bytes.
INTERPRETER, TORCH = 150_000_000, 700_000_000

# How much is written to find out how fast files can be written.
TRIAL = 16_000_000


@dataclass(frozen=True)
class Estimate:
    """The cost of some merges in one walk.

    Attributes:
        bytes_to_read: From the inputs, all passes together.
        bytes_to_write: All outputs together.
        memory: Bytes beyond mapped files.
        passes: Walks over the inputs.
        seconds: At the speed at which a piece of these inputs could just be read and a piece of output be written; methods that solve
            or sort take longer.
    """

    bytes_to_read: int
    bytes_to_write: int
    memory: int
    passes: int
    seconds: float

    def record(self) -> dict[str, Any]:
        """The estimate as a JSON-able map."""
        return asdict(self)

    def sentence(self) -> str:
        """The estimate for a person."""
        times = {1: "once", 2: "twice"}.get(self.passes, f"{self.passes} times")
        return (
            f"reads {size(self.bytes_to_read)} (the inputs {times}), writes {size(self.bytes_to_write)}, "
            f"needs {size(self.memory)} of memory; at least {duration(self.seconds)}"
        )


def estimate(models: Models, recipes: Sequence[Recipe], layout: Layout, *, scope: str, threads: int, trial: Path) -> Estimate:
    """What these merges cost.

    Args:
        models: The inputs.
        recipes: The merges.
        layout: Of each output.
        scope, threads: As in `engine.merge_many`.
        trial: A folder on the file system of the outputs.
    """
    names = names_in_scope(models.base, scope)
    methods = [get(recipe.method) for recipe in recipes]
    everything = [models.base, *models.specialists.values()]
    one_pass = sum(ITEM_BYTES[model.tensors[name].dtype] * model.size(name) for model in everything for name in names)
    measured = models.spectra.keys() >= set(models.domains)
    passes = 1 + max(_walks_before(method, measured=measured) for method in methods)
    outputs = len(recipes) * sum(layout.sizes.values())
    largest = 4 * max(models.size(name) for name in names)
    whole = any(method.scope != "element" for method in methods)
    block = 4 * BLOCK * (len(everything) + len(recipes))
    memory = INTERPRETER + threads * block + ((len(everything) + 1) * largest + TORCH if whole else 0)
    seconds = passes * one_pass / (_reading_rate(models, names) * min(threads, os.cpu_count() or 1)) + outputs / _writing_rate(trial)
    return Estimate(passes * one_pass, outputs, memory, passes, seconds)


def _walks_before(method: Method, *, measured: bool) -> int:
    """Walks that a method may need before its direction can be computed."""
    return (method.spectra and not measured) + (method.total is not None) + (method.tensor_total is not None)


def _reading_rate(models: Models, names: Sequence[str]) -> float:
    """Bytes per second at which one thread turns the inputs into task vectors, measured on a part of the largest tensor."""
    name = max(names, key=models.size)
    chunk = Chunk(name, 0, min(CHUNK, models.size(name)))
    models_read = [models.base, *models.specialists.values()]
    cuts = Cuts(models.domains, BLOCK)
    for _ in blocks(models, Chunk(name, 0, min(BLOCK, chunk.stop)), cuts):
        pass  # once before the clock runs, so that loading the kernels is not counted
    start = time.monotonic()
    for _ in blocks(models, chunk, cuts):
        pass
    read = sum(ITEM_BYTES[model.tensors[name].dtype] * chunk.stop for model in models_read)
    return max(read, 1) / max(time.monotonic() - start, 1e-6)


def _writing_rate(folder: Path) -> float:
    """Bytes per second at which a file can be written in a folder, as far as a small one tells."""
    path, block = folder / f".trial-{os.getpid()}", bytes(1_000_000)
    start = time.monotonic()
    try:
        with path.open("wb", buffering=0) as file:
            for _ in range(TRIAL // len(block)):
                file.write(block)
    finally:
        path.unlink(missing_ok=True)
    return TRIAL / max(time.monotonic() - start, 1e-6)


def size(count: float) -> str:
    """Bytes for a person."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if count >= 100 or unit == "B" else f"{count:.1f} {unit}"


def duration(seconds: float) -> str:
    """A time for a person."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
