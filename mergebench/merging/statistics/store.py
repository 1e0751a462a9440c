"""The file of a statistic: tensors by parameter name, with what they were measured on in the header.

Layers that read the same input (query, key and value; gate and up projection) have the same Gram matrix. It is
stored once, and the header's ``aliases`` map the other names to it.
"""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from mergebench.checkpoints.tensorfile import TensorFile
from mergebench.errors import MergebenchError

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
        return None if stored is None else self._file.get_tensor(stored)

    def values(self, name: str, start: int, stop: int) -> "np.ndarray | None":
        """Entries `start` to `stop` of the flattened statistic of parameter `name`, a view of the mapped file; None if not measured.

        Masks are uint8, one byte per entry; other statistics float32.
        """
        stored = self.stored_name(name)
        return None if stored is None else self._raw.values(stored, start, stop)

    @cached_property
    def _raw(self) -> TensorFile:
        return TensorFile(self.path)


def save_statistics(
    path: Path, tensors: Mapping[str, "torch.Tensor"], facts: Mapping[str, Any], aliases: Mapping[str, str] | None = None
) -> None:
    """Write a statistics file that `Statistics` reads."""
    from safetensors.torch import save_file

    header = json.dumps({"facts": dict(facts), "aliases": dict(aliases or {})}, sort_keys=True)
    # One entry: safetensors writes several in an order that changes from run to run.
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={HEADER: header})
