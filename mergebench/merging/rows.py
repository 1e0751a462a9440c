"""Embedding rows that the base lacks, in a merged model that keeps them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.kernels.bits import INFINITY
from mergebench.kernels.blocks import LOAD


def added_rows(specialists: Iterable[Checkpoint], name: str, start: int, out: np.ndarray) -> None:
    """The mean of the specialists that have them, of entries beyond the base's; every entry is in one specialist at least.

    Args:
        specialists: In the order of the domains.
        name: An embedding or a head.
        start: The first entry of the flattened tensor.
        out: Where to write, float32 (m,).

    Raises:
        MergebenchError: A value is NaN or infinite.
    """
    total, owners, loaded = np.zeros_like(out), np.zeros_like(out), np.empty_like(out)
    for model in specialists:
        info = model.tensors[name]
        count = min(max(info.size - start, 0), out.size)
        if LOAD[info.dtype](model.values(name, start, start + count), loaded[:count]) >= INFINITY:
            raise MergebenchError(f"Tensor {name!r} of {model.folder} has values that are NaN or infinite; train or fetch it again.")
        total[:count] += loaded[:count]
        owners[:count] += 1
    np.divide(total, owners, out=out)
