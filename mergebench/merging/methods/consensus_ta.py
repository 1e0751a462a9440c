"""Consensus Task Arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np

from mergebench.errors import MergebenchError
from mergebench.kernels.compiled import compiled
from mergebench.merging.context import Block, Tensors
from mergebench.merging.lazy import torch
from mergebench.merging.perdomain import per_domain
from mergebench.merging.registry import Range, Reference, method
from mergebench.merging.sums import plain_sum, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor

OWNER = "consensus_ta.thresholds"


def kernel(block: Block, out: np.ndarray, *, thresholds: float | dict[str, float], agreement: int, only: str | None) -> None:
    """The definition below, on one block."""
    total = plain_sum(block)
    rows = range(len(block.domains)) if only is None else (_position(only, block.domains),)
    chosen = [block.domains[index] for index in rows]
    kept = np.zeros(len(block.domains), np.int64)
    votes = np.zeros(out.size, np.uint16)
    for index, threshold in zip(rows, per_domain(thresholds, chosen, OWNER), strict=True):
        kept[index] = vote(block.vectors[index], total, np.float32(threshold), votes)
    agree(total, votes, np.uint16(min(agreement, len(chosen))), out)
    if only is None:
        block.observe(kept)


@compiled
def vote(vector, total, threshold, votes):  # type: ignore[no-untyped-def]
    """Add one task's mask to the votes, uint16 (m,); returns how many entries the mask has."""
    count = 0
    for i in range(votes.size):
        needs = abs(vector[i]) > threshold * abs(total[i] - vector[i])
        votes[i] += np.uint16(needs)
        count += needs
    return count


@compiled
def agree(total, votes, enough, out):  # type: ignore[no-untyped-def]
    """The sum where there are enough votes, else zero."""
    for i in range(out.size):
        out[i] = total[i] if votes[i] >= enough else np.float32(0)


@method(
    title="Consensus TA",
    reference=Reference("Wang et al., 2024", "2405.07813"),
    data="validation",
    scale=0.4,
    grid={"threshold": (0.2, 0.3, 0.4, 0.5, 0.6), "scale": tuple(step / 10 for step in range(1, 11))},
    per_domain={"threshold": "thresholds"},
    note="The thresholds are the original's; MergeBench prints 10 scales and not which, 0.1 to 1.0 is assumed.",
    kernel=kernel,
)
def consensus_ta(
    context: Tensors,
    *,
    thresholds: Annotated[float | dict[str, float], Range(0, 10)] = 0.4,
    agreement: Annotated[int, Range(1, 1000)] = 2,
    only: str | None = None,
) -> Tensor:
    """Task Arithmetic on the parameters that several tasks need.

    1. tau_MTL = sum_t tau_t.
    2. Task masks: m_t = 1 where |tau_t| > threshold_t * |tau_MTL - tau_t|.
    3. theta = theta_0 + scale * m * tau_MTL, m = 1 where at least `agreement` task masks are 1.

    The thresholds are tuned first, each on its own domain, with the model theta_0 + m_t * tau_MTL.

    Args:
        thresholds: threshold_t (lambda_t in the paper), per domain or one for all. Higher keeps less.
        agreement: Tasks that must agree (k in the paper); with fewer specialists, all of them.
        only: Return m_t * tau_MTL of this domain instead of the consensus: what its threshold is tuned on.
    """
    total = weighted_sum(context.vectors, [1.0] * len(context.domains), context.domains)
    rows = range(len(context.domains)) if only is None else (_position(only, context.domains),)
    chosen = [context.domains[index] for index in rows]
    masks = torch.zeros(context.vectors.shape, dtype=torch.bool, device=total.device)
    for index, threshold in zip(rows, per_domain(thresholds, chosen, OWNER), strict=True):
        vector = context.vectors[index]
        masks[index] = vector.abs() > threshold * (total - vector).abs()
    if only is None:
        context.observe(masks)
    return torch.where(masks.sum(0) >= min(agreement, len(chosen)), total, 0.0)


def _position(only: str, domains: tuple[str, ...]) -> int:
    if only not in domains:
        raise MergebenchError(f"consensus_ta.only is {only!r}; the specialists are {', '.join(domains)}.")
    return domains.index(only)
