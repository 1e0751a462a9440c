"""The task vector of one tensor: specialist minus base, in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError

if TYPE_CHECKING:
    import numpy as np
    import torch

Stream = Callable[[], Iterator[tuple[str, "np.ndarray"]]]


def task_vector(base: Checkpoint, specialist: Checkpoint, name: str) -> torch.Tensor:
    """tau = specialist - base for tensor `name`, float32, in the base's shape.

    The difference of two bfloat16 or float16 numbers is exact in float32 unless their exponents lie far apart. Rows
    that the base lacks (extra tokens of a specialist's embedding) are dropped; the audit has allowed or refused them.

    Raises:
        MergebenchError: A value is NaN or infinite.
    """
    import torch

    origin = base.tensor(name)
    tuned = specialist.tensor(name)
    if tuned.shape != origin.shape:
        tuned = tuned[: origin.shape[0]]
    vector = tuned.to(torch.float32) - origin.to(torch.float32)
    if not torch.isfinite(vector).all():
        culprit = base if not torch.isfinite(origin.to(torch.float32)).all() else specialist
        raise MergebenchError(f"Tensor {name!r} of {culprit.folder} has values that are NaN or infinite; train or fetch it again.")
    return vector


def stream(base: Checkpoint, specialist: Checkpoint, names: Iterable[str]) -> Stream:
    """A function that walks over the task vector, one tensor at a time, as often as it is called."""
    chosen = list(names)

    def walk() -> Iterator[tuple[str, np.ndarray]]:
        for name in chosen:
            yield name, task_vector(base, specialist, name).numpy()

    return walk
