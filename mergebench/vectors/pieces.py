"""Read parts of the base and of task vectors as float32, straight from the mapped files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.kernels.bits import INFINITY
from mergebench.kernels.blocks import LOAD, SUBTRACT

Load = Callable[[int, np.ndarray], None]
Subtract = Callable[[int, np.ndarray, np.ndarray], int]


def base_loader(base: Checkpoint, name: str, start: int, stop: int) -> Load:
    """A function that loads entries of a part of a flattened tensor.

    Args:
        base: The model.
        name: The tensor.
        start, stop: The part.

    Returns:
        (place, out): entries from `place` on, counted from the part's start, into out (float32). It raises MergebenchError where a value
        is NaN or infinite.
    """
    stored, convert = base.values(name, start, stop), LOAD[base.tensors[name].dtype]

    def load(place: int, out: np.ndarray) -> None:
        if convert(stored[place : place + out.size], out) >= INFINITY:
            raise _not_finite(base, name)

    return load


def vector_loader(specialist: Checkpoint, name: str, start: int, stop: int) -> Subtract:
    """As `base_loader`, for a task vector.

    The difference of two bfloat16 or float16 numbers is exact in float32 unless their exponents lie far apart. A specialist that lacks
    rows of the base has not moved them: its task vector is zero there.

    Returns:
        (place, base, out): specialist - base from `place` on, into out (float32), given the base's values; returns the bits of the largest
        magnitude.
    """
    stored, convert = specialist.values(name, start, stop), SUBTRACT[specialist.tensors[name].dtype]

    def load(place: int, base: np.ndarray, out: np.ndarray) -> int:
        part = stored[place : place + out.size]
        if part.size < out.size:
            out[part.size :] = 0
            base, out = base[: part.size], out[: part.size]
        top = convert(part, base, out)
        if top >= INFINITY:
            raise _not_finite(specialist, name)
        return int(top)

    return load


def _not_finite(model: Checkpoint, name: str) -> MergebenchError:
    return MergebenchError(f"Tensor {name!r} of {model.folder} has values that are NaN or infinite; train or fetch it again.")
