"""Checkpoints written by the walk: every output of a plan, each at its scale."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mergebench.checkpoints.digest import PieceDigest, realised_digest, tensor_digest
from mergebench.checkpoints.shards import ShardFolder
from mergebench.checkpoints.tensorfile import ITEM_BYTES, STORAGE
from mergebench.errors import MergebenchError
from mergebench.kernels.bits import OVERFLOW
from mergebench.kernels.blocks import STORE, scale_in_bfloat16
from mergebench.merging.emit import Piece, Taker, emit_all
from mergebench.merging.models import Models
from mergebench.merging.plan import Plan
from mergebench.merging.report import Facts, Report
from mergebench.merging.rows import added_rows
from mergebench.vectors.pieces import base_loader
from mergebench.vectors.walk import BLOCK, Chunk, chunks, ordered


@dataclass
class Output:
    """One checkpoint in the making.

    Attributes:
        models: The inputs.
        number: Number of its direction in the plan.
        scale: merged = base + scale * direction.
        folder: Where it appears when it is complete.
        shards: Its files.
        recipe: How it is made, for manifests.
        report: What the direction turned out to be, once all is written.
        facts: Tensor name -> the same, of the file being written.
        digests: Tensor name -> digests of its pieces, in order, of the file being written.
    """

    models: Models
    number: int
    scale: float
    folder: Path
    shards: ShardFolder
    recipe: dict[str, Any]
    report: Report
    facts: dict[str, Facts] = field(default_factory=dict)
    digests: dict[str, list[bytes]] = field(default_factory=dict)

    def take(self, chunk: Chunk) -> Taker:
        """A taker that rounds and writes this output's part of a chunk, and returns its digests."""
        info = self.shards.layout.slots[chunk.name].info
        digest, buffer = PieceDigest(ITEM_BYTES[info.dtype]), np.empty(BLOCK, STORAGE[info.dtype])
        scaled = np.empty(BLOCK if self.recipe["arithmetic"] == "bfloat16" else 0, np.float32)

        def taker(piece: Piece | None) -> bytes:
            if piece is None:
                if chunk.stop == self.models.size(chunk.name):
                    self._add_rows(chunk.name, chunk.stop, digest)
                return digest.digests()
            out = buffer[: piece.base.size]
            direction, scale = piece.directions[self.number], self.scale
            if self.recipe["arithmetic"] == "bfloat16":
                scale_in_bfloat16(direction, scale, scaled[: out.size])
                direction, scale = scaled[: out.size], 1.0
            if STORE[info.dtype](piece.base, direction, scale, out) >= OVERFLOW[info.dtype]:
                raise _overflow(piece.name, info.dtype)
            digest.update(out)
            self.shards.put(piece.name, piece.offset, out)
            return b""

        return taker

    def done(self, chunk: Chunk, facts: Facts | None, digest: bytes) -> None:
        """Note a chunk that has been written; chunks of a tensor come in order."""
        self.digests.setdefault(chunk.name, []).append(digest)
        if facts is not None:
            self.facts.setdefault(chunk.name, Facts()).add(facts)

    def begin(self, files: Iterable[str]) -> None:
        """Start some files."""
        for file in files:
            self.shards.begin(file)

    def end(self, files: Iterable[str]) -> None:
        """Finish files whose tensors have all been written."""
        for file in files:
            names = self.shards.layout.names(file)
            digests = {name: tensor_digest(self.digests.pop(name)) for name in names}
            facts = {name: self.facts.pop(name).record() for name in names if name in self.facts}
            self.shards.end(file, {"digests": digests, "facts": facts})

    def record(self) -> dict[str, Any]:
        """What was made, for a manifest; all files are finished."""
        digests: dict[str, str] = {}
        for finished in self.shards.finished.values():
            digests.update(finished["digests"])
            self.report.tensors.update({name: Facts(**facts) for name, facts in finished["facts"].items()})
        return {"recipe": self.recipe, "realised": self.report.record(), "realised_digest": realised_digest(digests)}

    def copy(self, chunk: Chunk) -> bytes:
        """Write the base's own values of a chunk, and return their digests."""
        base, info = self.models.base, self.shards.layout.slots[chunk.name].info
        if info.dtype == base.tensors[chunk.name].dtype:
            values = base.values(chunk.name, chunk.start, chunk.stop)
            digest = PieceDigest(ITEM_BYTES[info.dtype])
            digest.update(values)
            self.shards.put(chunk.name, chunk.start, values)
            if chunk.stop == self.models.size(chunk.name):
                self._add_rows(chunk.name, chunk.stop, digest)
            return digest.digests()
        digest, load = PieceDigest(ITEM_BYTES[info.dtype]), base_loader(base, *chunk)
        for place in range(0, chunk.stop - chunk.start, BLOCK):
            block = np.empty(min(BLOCK, chunk.stop - chunk.start - place), np.float32)
            load(place, block)
            self._round(chunk.name, chunk.start + place, block, digest)
        if chunk.stop == self.models.size(chunk.name):
            self._add_rows(chunk.name, chunk.stop, digest)
        return digest.digests()

    def _add_rows(self, name: str, start: int, digest: PieceDigest) -> None:
        """Write the rows that the base lacks, if the merged model has them."""
        size = self.shards.layout.slots[name].info.size
        for place in range(start, size, BLOCK):
            rows = np.empty(min(BLOCK, size - place), np.float32)
            added_rows(self.models.specialists.values(), name, place, rows)
            self._round(name, place, rows, digest)

    def _round(self, name: str, place: int, values: np.ndarray, digest: PieceDigest) -> None:
        """Write values that no direction is added to. Adding minus zero leaves every number as it is, zeros of either sign included."""
        dtype = self.shards.layout.slots[name].info.dtype
        out = np.empty(values.size, STORAGE[dtype])
        if STORE[dtype](values, np.full(values.size, -0.0, np.float32), 1.0, out) >= OVERFLOW[dtype]:
            raise _overflow(name, dtype)
        digest.update(out)
        self.shards.put(name, place, out)


def _overflow(name: str, dtype: str) -> MergebenchError:
    return MergebenchError(f"Tensor {name!r} of the merge is not finite in {dtype}: use a smaller scale or a wider dtype.")


def write(models: Models, planned: Plan, outputs: Sequence[Output], threads: int, progress: Callable[[int, int], None] | None) -> None:
    """Write all outputs, file after file, in one walk; files that are finished already are left alone.

    Args:
        models: The inputs.
        planned: The directions of the outputs.
        outputs: They have one layout.
        threads: Threads.
        progress: Told (tensors written, tensors in all).
    """
    layout, scope = outputs[0].shards.layout, set(planned.names)
    layered = any(planned.directions[output.number].method.scope == "layer" for output in outputs)
    written = 0
    for files in [list(layout.headers)] if layered else [[file] for file in layout.headers]:
        names = [name for file in files for name in layout.names(file)]
        pending = [output for output in outputs if not all(file in output.shards.finished for file in files)]
        for output in pending:
            output.begin(files)
        for chunk in _write(models, planned, pending, names, scope, threads) if pending else ():
            written += chunk.stop == models.size(chunk.name)
            if progress:
                progress(min(written, len(layout.slots)), len(layout.slots))
        for output in pending:
            output.end(files)
        written = sum(len(layout.names(file)) for file in layout.headers if file in outputs[0].shards.finished)


def _write(
    models: Models, planned: Plan, outputs: Sequence[Output], names: Sequence[str], scope: set[str], threads: int
) -> Iterator[Chunk]:
    """Write these tensors of some outputs; the chunks that are done."""
    merged = [name for name in names if name in scope]
    by_number: dict[int, list[Output]] = {}
    for output in outputs:
        by_number.setdefault(output.number, []).append(output)

    def take(chunk: Chunk) -> Taker:
        takers = {number: [(output, output.take(chunk)) for output in members] for number, members in by_number.items()}

        def taker(piece: Piece | None) -> Any:
            if piece is None:
                return {number: [(output, take_one(None)) for output, take_one in members] for number, members in takers.items()}
            for number in piece.directions:
                for _, take_one in takers[number]:
                    take_one(piece)
            return None

        return taker

    for done in emit_all(models, planned, by_number, merged, take, threads):
        for number, facts in done.facts.items():
            for output, digest in done.result[number]:
                output.done(done.chunk, facts, digest)
        yield done.chunk

    def copy(chunk: Chunk) -> tuple[Chunk, list[bytes]]:
        return chunk, [output.copy(chunk) for output in outputs]

    for chunk, digests in ordered(chunks(models, [name for name in names if name not in scope]), copy, threads):
        for output, digest in zip(outputs, digests, strict=True):
            output.done(chunk, None, digest)
        yield chunk
