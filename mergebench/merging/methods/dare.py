"""DARE."""

from typing import Annotated

import torch

from mergebench.merging import counter
from mergebench.merging.context import Tensors
from mergebench.merging.registry import Range, Reference, method


@method(
    title="DARE",
    reference=Reference("Yu et al., 2024", "2311.03099"),
    data="validation",
    scale=0.4,
    grid={"density": (0.1, 0.2, 0.3), "scale": tuple(step / 10 for step in range(1, 11))},
    note="MergeBench prints 30 pairs and not which; drop rates 0.9, 0.8, 0.7 by 10 scales are assumed.",
)
def dare(context: Tensors, *, density: Annotated[float, Range(0.001, 1)] = 0.2) -> torch.Tensor:
    """Drop entries at random, rescale the others, add.

    theta = theta_0 + scale * sum_t m_t * tau_t / density, m_t ~ Bernoulli(density).

    Whether an entry is kept depends on the seed, the specialist's domain, the tensor's name and the entry's position alone,
    and what is kept at one density is kept at every higher one.

    Args:
        density: Fraction that is kept, 1 - p in the paper's terms.
    """
    kept = torch.empty(context.vectors.shape, dtype=torch.bool)
    for row, domain in enumerate(context.domains):
        draws = counter.keep(counter.key(context.seed, domain, context.name), context.base.numel(), density)
        kept[row] = torch.from_numpy(draws).reshape(context.base.shape)
    context.observe(kept)
    return torch.where(kept, context.vectors, 0.0).sum(0) / density
