"""The weights of a loaded model, replaced in place by those of another checkpoint, and the proof that they took effect."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch

from mergebench.errors import MergebenchError

Named = tuple[str, torch.Tensor]

WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
MODULUS = 1 << 64
# Entries at a time: few enough to stay near a core of a CPU, many enough to keep a GPU busy.
PIECE = {"cpu": 1 << 18, "cuda": 1 << 24}


class LiveModel(ABC):
    """The place of a backend's weights. Tensors have the names, shapes and dtypes of a Hugging Face checkpoint.

    After `install` the caller resets the language model, whose caches belong to the weights before.

    Attributes:
        device: where the model computes.
        tolerance: how far two log-probabilities of the same weights and the same batch may lie apart.
    """

    device: torch.device
    tolerance: float = 0.0

    @abstractmethod
    def unknown(self, names: Iterable[str]) -> list[str]:
        """Those names that the model has no place for."""

    @abstractmethod
    def install(self, tensors: Iterable[Named]) -> None:
        """Write a whole checkpoint over the weights, each tensor once, in any order, cast to the dtype of the model.

        Storages stay where they are, so that what points to them (a tied head, a CUDA graph) sees the new values.

        Raises:
            MergebenchError: a weight of the model got no value.
        """

    @abstractmethod
    def check(self, *, thorough: bool = False) -> None:
        """Read back what the model computes with, and compare it with what was installed last.

        Args:
            thorough: read back also what is slow to read, whole.

        Raises:
            MergebenchError: they differ.
        """


class ModuleWeights(LiveModel):
    """The parameters of a `transformers` module, whose names are those of the checkpoint."""

    def __init__(self, module: Any) -> None:
        self.targets: dict[str, torch.Tensor] = module.state_dict(keep_vars=True)
        self.device = next(module.parameters()).device
        self.tolerance = tolerance(self.device, next(module.parameters()).dtype)
        self._expected: dict[str, int] = {}

    def unknown(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self.targets]

    @torch.no_grad()
    def install(self, tensors: Iterable[Named]) -> None:
        expected, written = {}, set()
        for name, tensor in tensors:
            target = self.targets[name]
            moved = tensor.to(target.device, non_blocking=True).to(target.dtype)
            target.copy_(moved)
            written.add(target.data_ptr())
            expected[name] = checksum(moved)
        require_all([name for name, target in self.targets.items() if target.data_ptr() not in written])
        self._expected = expected

    def check(self, *, thorough: bool = False) -> None:
        require_equal([name for name, expected in self._expected.items() if checksum(self.targets[name]) != expected])


def checksum(tensor: torch.Tensor) -> int:
    """The sum of a tensor's bits modulo 2^64, in words of 8 bytes where rows are made of these, else entry by entry.

    Zeros of either sign are the same. It adds up (modulo 2^64) over parts that are stacked along the first dimension, in any order: a fused
    parameter has the sum of those that it was made of, with padding of zeros or without.
    """
    size = tensor.element_size()
    word = 8 if tensor.ndim > 1 and tensor.shape[-1] * size % 8 == 0 else size
    total = 0
    for piece in tensor.detach().reshape(-1).split(PIECE.get(tensor.device.type, PIECE["cpu"])):
        total += int((piece + 0.0).view(WORDS[word]).sum(dtype=torch.int64))
    return total % MODULUS


def tolerance(device: torch.device, dtype: torch.dtype) -> float:
    """How far log-probabilities of the same weights and batch may lie apart: not at all on a CPU; GPUs may add up in another order."""
    if device.type == "cpu":
        return 0.0
    return 1e-3 if dtype == torch.float32 else 0.1


def require_all(missing: list[str]) -> None:
    """Raise where a weight of the model got no value."""
    if missing:
        raise MergebenchError(
            f"{missing[0]} ({len(missing)} in all) of the live model got no value: the checkpoint that it was loaded from does not have "
            "all that the model computes with, so its candidates cannot be tuned live."
        )


def require_equal(different: list[str]) -> None:
    """Raise where the model computes with other numbers than those that were installed."""
    if different:
        raise MergebenchError(
            f"{different[0]} ({len(different)} in all) of the live model does not hold what was installed: its scores would be those of "
            "other weights. Set the backend of tuning to transformers, and report the release of the engine."
        )
