"""How far a specialist has moved from its base; on the way, every value is looked at."""

import math
from collections.abc import Callable, Iterator

import torch

from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError

PIECE = 1 << 24  # entries compared at a time


def relative_change(base: Checkpoint, specialist: Checkpoint, name: str, progress: Callable[[float, float, str], None]) -> float:
    """||specialist - base|| / ||base|| over the tensors of the base, in float64 sums; rows that the base lacks are only checked.

    Raises:
        MergebenchError: a value is NaN or infinite, or the specialist is its base.
    """
    squares = reference = 0.0
    for number, tensor in enumerate(specialist.names, start=1):
        found = specialist.tensor(tensor)
        before = base.tensor(tensor) if tensor in base.tensors else None
        for start, stop in _pieces(found):
            piece = found.reshape(-1)[start:stop]
            if not bool(torch.isfinite(piece).all()):
                raise MergebenchError(f"{name}: {tensor} holds NaN or infinite values; its training diverged: use another checkpoint.")
            if before is not None:  # an embedding may have more rows than the base's; they follow the ones that both have
                old = before.reshape(-1)[start:stop].double()
                squares += float((piece[: len(old)].double() - old).square().sum())
                reference += float(old.square().sum())
        progress(number, len(specialist.names), "tensors checked")
    if not squares:
        raise MergebenchError(f"{name} is its base, value for value: there is nothing to merge; check that it is the model that you want.")
    return round(math.sqrt(squares / reference), 6) if reference else 0.0


def _pieces(tensor: torch.Tensor) -> Iterator[tuple[int, int]]:
    for start in range(0, tensor.numel(), PIECE):
        yield start, start + PIECE
