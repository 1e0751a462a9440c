"""The file of a statistic: tensors by parameter name, with what they were measured on in the header.

Layers that read the same input (query, key and value; gate and up projection) have the same Gram matrix. It is
stored once, and the header's ``aliases`` map the other names to it. Masks, bool tensors to all who read or write them, are stored as
bits (`packing`); the header's ``shapes`` are theirs.
"""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from mergebench.checkpoints.tensorfile import TensorFile
from mergebench.checkpoints.tensorwriter import save_tensors
from mergebench.errors import MergebenchError
from mergebench.merging.statistics.packing import pack, unpack, unpacked

if TYPE_CHECKING:
    import numpy as np
    import torch

HEADER = "statistics"


class Statistics:
    """Read-only view of a ``statistics.safetensors`` file; tensors are read one at a time.

    Attributes:
        path: The file.
        facts: What was measured: ``kind``, ``base``, ``domain``, ``rows``, ``tokens``.

    Raises:
        MergebenchError: the file is absent, truncated, or no statistic.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._file = safe_open(self.path, framework="pt")
            header = json.loads((self._file.metadata() or {})[HEADER])
            self.facts: dict[str, Any] = header["facts"]
            self._aliases: dict[str, str] = header["aliases"]
            self._packed: dict[str, list[int]] = header.get("shapes", {})
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise MergebenchError(f"{self.path} is not a complete statistics file ({error}); make it again.") from None
        self._stored = frozenset(self._file.keys())

    def names(self) -> list[str]:
        """Names of all measured parameters, sorted."""
        return sorted(self._stored | self._aliases.keys())

    def stored_name(self, name: str) -> str | None:
        """The name under which the tensor of `name` is stored; the same for parameters that share an input."""
        name = self._aliases.get(name, name)
        return name if name in self._stored else None

    def get(self, name: str) -> "torch.Tensor | None":
        """The statistic of parameter `name`, or None if it was not measured."""
        stored = self.stored_name(name)
        if stored is None:
            return None
        tensor = self._file.get_tensor(stored)
        return unpacked(tensor.numpy(), tuple(self._packed[stored])) if stored in self._packed else tensor

    def values(self, name: str, start: int, stop: int) -> "np.ndarray | None":
        """Entries `start` to `stop` of the flattened statistic of parameter `name`; None if not measured.

        Masks are uint8, one byte per entry; other statistics are float32, a view of the mapped file.
        """
        stored = self.stored_name(name)
        if stored is None:
            return None
        if stored in self._packed:
            return unpack(self._raw.values(stored), start, min(stop, math.prod(self._packed[stored])))
        return self._raw.values(stored, start, stop)

    @cached_property
    def _raw(self) -> TensorFile:
        return TensorFile(self.path)


def save_statistics(
    path: Path, tensors: Mapping[str, "torch.Tensor"], facts: Mapping[str, Any], aliases: Mapping[str, str] | None = None
) -> None:
    """Write a statistics file that `Statistics` reads."""
    import torch

    masks = {name: tensor for name, tensor in tensors.items() if tensor.dtype == torch.bool}
    stored = {**tensors, **{name: torch.from_numpy(pack(mask.cpu().numpy())) for name, mask in masks.items()}}
    shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
    save_tensors(path, stored, {HEADER: header(facts, aliases or {}, shapes)})


def header(facts: Mapping[str, Any], aliases: Mapping[str, str], shapes: Mapping[str, Sequence[int]]) -> str:
    """The header entry of a statistics file; `shapes` are those of the tensors that are stored as bits."""
    packed = {name: list(shape) for name, shape in shapes.items()}
    return json.dumps({"facts": dict(facts), "aliases": dict(aliases), "shapes": packed}, sort_keys=True)
