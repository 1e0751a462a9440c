"""What the released MergeBench code does to the base in Localize-and-Stitch, for audits of published results.

Its localiser adds each localised task vector to the base in place. Every later task is therefore localised against a base that the
earlier ones have changed, and all are stitched onto that base: the result depends on the order of the tasks, and is not the published one.
Everything is computed in bfloat16, as there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mergebench.checkpoints.reader import is_embedding
from mergebench.merging.context import Block, Tensors
from mergebench.merging.lazy import torch
from mergebench.merging.order import released_order
from mergebench.merging.stitching import stitch_released

if TYPE_CHECKING:
    from torch import Tensor

COARSE, FINE = 1 << 15, 1 << 16


def polluted(context: Tensors, select: Callable[[int, Tensor], Tensor]) -> Tensor:
    """The direction of Localize-and-Stitch with a polluted base.

    Args:
        context: The piece.
        select: (row of the domain, its task vector against the base so far) -> which entries it selects, bool.

    Returns:
        merged - base, float32 (*shape).
    """
    order = released_order(context.domains)
    base, masks = _localise(context, order, select)
    stacked = torch.stack([masks[row] for row in range(len(order))])
    context.observe(stacked)
    vectors = torch.stack([_specialist(context, row) - base for row in range(len(order))])
    return (base + stitch_released(vectors, stacked, order)).float() - context.base.float()


def thresholds(context: Tensors, densities: Sequence[float]) -> Tensor | None:
    """One round of the search for every task's threshold: a histogram of this piece, int64, or None when all are known.

    A task's task vector is known once the thresholds before it are. Each takes two rounds: the upper, then the lower half of the bits.
    """
    order = released_order(context.domains)
    known, place = _known(context.totals, [densities[row] for row in order])
    if len(known) == len(order):
        return None
    base, _ = _localise(context, order[: len(known)], _at_least(order, known))
    row = order[len(known)]
    bits = (_specialist(context, row) - base).float().abs().view(torch.int32)
    if place is None:
        return torch.bincount(bits >> 16, minlength=COARSE)
    return torch.bincount(bits[bits >> 16 == place] & (FINE - 1), minlength=FINE)


def polluted_largest(context: Tensors, densities: Sequence[float]) -> Tensor:
    """`polluted`, where each task selects its largest entries."""
    order = released_order(context.domains)
    known, _ = _known(context.totals, [densities[row] for row in order])
    return polluted(context, _at_least(order, known))


def as_tensors(block: Block) -> Tensors:
    """A block as definitions see it: what the released code computes has no kernel of its own."""
    return Tensors(
        name=block.name,
        base=torch.from_numpy(block.base),
        vectors=torch.from_numpy(block.vectors),
        domains=block.domains,
        offset=block.offset,
        seed=block.seed,
        totals=block.totals,
        find=lambda kind, domain, name: torch.from_numpy(block.statistic(kind)[block.domains.index(domain)]),
        observe=lambda masks, cancelled=0: block.observe(masks.sum(1).numpy(), cancelled),
    )


def _localise(context: Tensors, order: Sequence[int], select: Callable[[int, Tensor], Tensor]) -> tuple[Tensor, dict[int, Tensor]]:
    """The base after these tasks, bfloat16, and the entries that each selected."""
    base, masks = context.base.bfloat16(), {}
    for row in order:
        vector = _specialist(context, row) - base
        masks[row] = select(row, vector)
        # The embedding and the head are localised, but never written.
        if not is_embedding(context.name):
            base = base + torch.where(masks[row], vector, 0.0)
    return base, masks


def _specialist(context: Tensors, row: int) -> Tensor:
    return (context.base + context.vectors[row]).bfloat16()


def _at_least(order: Sequence[int], known: Sequence[int]) -> Callable[[int, Tensor], Tensor]:
    limits = dict(zip(order, known, strict=False))
    return lambda row, vector: vector.float().abs().view(torch.int32) >= limits[row]


def _known(totals: Sequence[np.ndarray], densities: Sequence[float]) -> tuple[list[int], int | None]:
    """The thresholds (as float32 bits) found so far, and the coarse bin of the next one if it is known."""
    known: list[int] = []
    for number in range(0, len(totals), 2):
        wanted = int(densities[number // 2] * int(totals[number].sum()))
        place, above = _bin(totals[number], wanted)
        if number + 1 == len(totals):
            return known, place
        known.append(place << 16 | _bin(totals[number + 1], wanted - above)[0])
    return known, None


def _bin(counts: np.ndarray, rank: int) -> tuple[int, int]:
    """The bin of the entry with this rank from the largest, and how many entries lie above the bin."""
    at_least = np.cumsum(counts[::-1])
    place = max(len(counts) - 1 - int(np.searchsorted(at_least, max(rank, 1))), 0)
    return place, int(at_least[len(counts) - 1 - place] - counts[place])
