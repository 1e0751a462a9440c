"""One direction, held while all of its scales are tried: in memory as far as it fits, the rest in a file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
import torch


class Direction(Mapping[str, torch.Tensor]):
    """The tensors of a direction by name, float32, with the shapes of the base; made by `hold`.

    It has to be closed (a context manager): that removes its file.

    Attributes:
        in_memory: bytes that are held in memory.
        on_disk: bytes in the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.in_memory = self.on_disk = 0
        self._kept: dict[str, torch.Tensor] = {}
        self._written: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._file: IO[bytes] | None = None

    def add(self, name: str, tensor: torch.Tensor, budget: int) -> None:
        """Hold a tensor: in memory while all that is there stays within `budget` bytes."""
        size = tensor.numel() * tensor.element_size()
        if self.in_memory + size <= budget:
            self._kept[name] = tensor
            self.in_memory += size
            return
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w+b")
        tensor.detach().contiguous().numpy().tofile(self._file)
        self._written[name] = (self.on_disk, tuple(tensor.shape))
        self.on_disk += size

    def __getitem__(self, name: str) -> torch.Tensor:
        if name in self._kept:
            return self._kept[name]
        start, shape = self._written[name]
        assert self._file is not None
        self._file.flush()
        # Mapped privately, page by page: what has been read can be dropped by the system when memory is short.
        values = np.memmap(self._file, np.float32, "c", offset=start, shape=(math.prod(shape),))
        return torch.from_numpy(values).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        yield from self._kept
        yield from self._written

    def __len__(self) -> int:
        return len(self._kept) + len(self._written)

    def close(self) -> None:
        """Free the memory and remove the file."""
        self._kept.clear()
        self._written.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def hold(tensors: Iterable[tuple[str, torch.Tensor]], folder: Path, *, budget: int) -> Direction:
    """Take a direction as the engine computes it, and hold it.

    Args:
        tensors: (name, float32 tensor), as from `merging.engine.planned_direction`; consumed once.
        folder: where what does not fit is written, to a file that is removed when the direction is closed. A file that a killed job left
            there is overwritten.
        budget: bytes that may stay in memory.
    """
    direction = Direction(folder / "direction.f32")
    try:
        for name, tensor in tensors:
            direction.add(name, tensor, budget)
    except BaseException:
        direction.close()
        raise
    return direction
