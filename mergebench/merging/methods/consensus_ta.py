"""Consensus Task Arithmetic."""

from typing import Annotated

import torch

from mergebench.errors import MergebenchError
from mergebench.merging.context import Tensors
from mergebench.merging.registry import Range, Reference, method


@method(
    title="Consensus TA",
    reference=Reference("Wang et al., 2024", "2405.07813"),
    data="validation",
    scale=0.4,
    grid={"threshold": (0.2, 0.3, 0.4, 0.5, 0.6), "scale": tuple(step / 10 for step in range(1, 11))},
    per_domain={"threshold": "thresholds"},
    note="The thresholds are the original's; MergeBench prints 10 scales and not which, 0.1 to 1.0 is assumed.",
)
def consensus_ta(
    context: Tensors,
    *,
    thresholds: Annotated[float | dict[str, float], Range(0, 10)] = 0.4,
    agreement: Annotated[int, Range(1, 1000)] = 2,
    only: str | None = None,
) -> torch.Tensor:
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
    total = context.vectors.sum(0)
    domains = context.domains if only is None else (only,)
    masks = torch.zeros(context.vectors.shape, dtype=torch.bool)
    for domain in domains:
        if domain not in context.domains:
            raise MergebenchError(f"consensus_ta.only is {domain!r}; the specialists are {', '.join(context.domains)}.")
        row = context.domains.index(domain)
        vector = context.vectors[row]
        masks[row] = vector.abs() > _threshold(thresholds, domain) * (total - vector).abs()
    if only is not None:
        return torch.where(masks[context.domains.index(only)], total, 0.0)
    context.observe(masks)
    return torch.where(masks.sum(0) >= min(agreement, len(context.domains)), total, 0.0)


def _threshold(thresholds: float | dict[str, float], domain: str) -> float:
    if not isinstance(thresholds, dict):
        return thresholds
    if domain not in thresholds:
        raise MergebenchError(f"consensus_ta.thresholds has no value for {domain}; it has {', '.join(thresholds)}.")
    return thresholds[domain]
