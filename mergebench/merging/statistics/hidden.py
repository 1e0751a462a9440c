"""The hidden states of all calibration rows between two stages of a model, in a file.

A row has its place whatever was written before, on pages of its own, so that several processes can write rows of one file, in any
order, and a later attempt finds those that an earlier one has written.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

PAGE = 4096


class HiddenStates:
    """Hidden states of rows of known lengths; a file is made by the first write.

    Args:
        path: The file.
        lengths: Tokens of each row.
        width: Entries of a hidden state.
        dtype: Of the entries.
    """

    def __init__(self, path: Path, lengths: Sequence[int], width: int, dtype: torch.dtype) -> None:
        self.path = Path(path)
        self.lengths, self.width, self.dtype = list(lengths), width, dtype
        self._sizes = [length * width * dtype.itemsize for length in lengths]
        self._starts = [0]
        for size in self._sizes:
            self._starts.append(self._starts[-1] + -(-size // PAGE) * PAGE)
        self._file: int | None = None

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self._starts[-1]

    def write(self, rows: Sequence[int], hidden: torch.Tensor) -> None:
        """Store the real tokens of some rows; `hidden` (rows, longest, width) is padded on the right."""
        file = self._open()
        for place, row in enumerate(rows):
            values = hidden[place, : self.lengths[row]].to("cpu", self.dtype).contiguous()
            _write(file, values.reshape(-1).view(torch.uint8).numpy().data, self._starts[row])

    def read(self, rows: Sequence[int], device: torch.device | str = "cpu") -> torch.Tensor:
        """The hidden states of some rows, (rows, longest, width), zero where a row has no token."""
        file = self._open()
        longest = max(self.lengths[row] for row in rows)
        hidden = torch.zeros(len(rows), longest, self.width, dtype=self.dtype)
        for place, row in enumerate(rows):
            part = hidden[place, : self.lengths[row]]
            _read(file, part.reshape(-1).view(torch.uint8).numpy().data, self._starts[row], self.path)
        return hidden.to(device)

    def flush(self) -> None:
        """Return when all that was written is on the disk."""
        if self._file is not None:
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file; a later read or write opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def remove(self) -> None:
        """Close and delete the file, if there is one."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _open(self) -> int:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        return self._file


def _write(file: int, data: memoryview, start: int) -> None:
    while data:
        written = os.pwrite(file, data, start)
        data, start = data[written:], start + written


def _read(file: int, data: memoryview, start: int, path: Path) -> None:
    while data:
        count = os.preadv(file, [data], start)
        if not count:
            raise OSError(f"{path} ends before its byte {start}: hidden states of a row are missing")
        data, start = data[count:], start + count
