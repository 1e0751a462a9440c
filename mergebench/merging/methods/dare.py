"""DARE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from mergebench.kernels.compiled import compiled
from mergebench.kernels.counter import draw
from mergebench.kernels.elect import elect_block
from mergebench.merging import counter
from mergebench.merging.context import Block, Tensors
from mergebench.merging.lazy import torch
from mergebench.merging.perdomain import per_domain
from mergebench.merging.registry import Range, Reference, method
from mergebench.merging.signs import AGGREGATES, elect, merge_agreeing, merge_block
from mergebench.merging.sums import as_row, divide, normaliser, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor

Numbers = float | dict[str, float]
Rescale = Literal["inv_keep", "l1", "none"]

# Below this sum of magnitudes a tensor is not rescaled to it (mergekit's value).
SMALLEST_NORM = 1e-7


def masks(context: Tensors, density: Numbers) -> Tensor:
    """Which entries are kept: bool (n, m)."""
    kept = torch.empty(context.vectors.shape, dtype=torch.bool)
    for index, probability in enumerate(per_domain(density, context.domains, "dare.density")):
        draws = counter.draw(counter.key(context.seed, context.domains[index], context.name), context.offset, kept.shape[1])
        kept[index] = torch.from_numpy(draws <= last_kept(probability))
    return kept.to(context.vectors.device)


def last_kept(probability: float) -> np.uint32:
    """The largest 32-bit random number with which an entry is kept."""
    return np.uint32(max(round(probability * 2**32), 1) - 1)


def factors(rescale: Rescale, densities: list[float], shares: list[float], norms: np.ndarray | None) -> list[float]:
    """What each task vector's kept entries are multiplied by, its weight included.

    Args:
        rescale, densities, shares: The method's parameters.
        norms: For "l1": sums of magnitudes of this tensor, all and kept, float64 (n, 2).
    """
    if rescale == "inv_keep":
        return [share / density for share, density in zip(shares, densities, strict=True)]
    if rescale == "none" or norms is None:
        return shares
    sound = norms.min(1) >= SMALLEST_NORM
    ratios = np.divide(norms[:, 0], norms[:, 1], out=np.ones(len(norms)), where=sound)
    return [float(share * ratio) for share, ratio in zip(shares, ratios, strict=True)]


def norms(context: Tensors, *, density: Numbers, rescale: Rescale, weights: Numbers, normalise: bool, elect_signs: bool) -> Tensor | None:
    """Of this piece, each task vector's sums of magnitudes, all and kept: float64 (n, 2); None where they are not needed."""
    if rescale != "l1":
        return None
    magnitudes = context.vectors.double().abs()
    return torch.stack([magnitudes.sum(1), torch.where(masks(context, density), magnitudes, 0.0).sum(1)], dim=1)


def norms_kernel(
    block: Block, *, density: Numbers, rescale: Rescale, weights: Numbers, normalise: bool, elect_signs: bool
) -> np.ndarray | None:
    """`norms` of one block."""
    if rescale != "l1":
        return None
    return magnitudes(block.vectors, draws(block), limits(block, density))


def kernel(
    block: Block,
    out: np.ndarray,
    *,
    density: Numbers,
    rescale: Rescale,
    weights: Numbers,
    normalise: bool,
    elect_signs: bool,
) -> None:
    """The definition below, on one block."""
    shares = per_domain(weights, block.domains, "dare.weights")
    factor = as_row(factors(rescale, per_domain(density, block.domains, "dare.density"), shares, block.tensor_total))
    if elect_signs:
        dropped = np.empty_like(block.vectors)
        block.observe(drop(block.vectors, draws(block), limits(block, density), factor, dropped))
        signs = np.empty(out.size, np.float32)
        elect_block(dropped, signs, 1.0)
        merge_block(dropped, as_row(shares), signs, AGGREGATES["mean" if normalise else "sum"], out)
        return
    block.observe(drop_and_add(block.vectors, draws(block), limits(block, density), factor, out))
    if normalise:
        divide(out, normaliser(shares, "dare"))


def limits(block: Block, density: Numbers) -> np.ndarray:
    """`last_kept` of every domain, uint32 (n,)."""
    return np.array([last_kept(probability) for probability in per_domain(density, block.domains, "dare.density")])


def draws(block: Block) -> np.ndarray:
    """The block's random numbers, uint32 (n, m), drawn once for all densities."""

    def make() -> np.ndarray:
        found = np.empty(block.vectors.shape, np.uint32)
        for index, domain in enumerate(block.domains):
            draw(np.uint64(counter.key(block.seed, domain, block.name)), np.uint64(block.offset), found[index])
        return found

    drawn: np.ndarray = block.shared(("draws", block.seed), make)
    return drawn


@compiled
def drop(vectors, draws, limits, factors, out):  # type: ignore[no-untyped-def]
    """The kept entries times their factors, zero elsewhere: (n, m); returns how many are kept, int64 (n,)."""
    kept = np.zeros(vectors.shape[0], np.int64)
    for t in range(vectors.shape[0]):
        vector, drawn, last, factor, dropped = vectors[t], draws[t], limits[t], factors[t], out[t]
        count = 0
        for i in range(vector.size):
            keep = drawn[i] <= last
            dropped[i] = (vector[i] if keep else np.float32(0)) * factor
            count += keep
        kept[t] = count
    return kept


@compiled
def drop_and_add(vectors, draws, limits, factors, out):  # type: ignore[no-untyped-def]
    """The sum of what `drop` returns, float32 (m,), without the n task vectors in between."""
    kept = np.zeros(vectors.shape[0], np.int64)
    for t in range(vectors.shape[0]):
        vector, drawn, last, factor = vectors[t], draws[t], limits[t], factors[t]
        count = 0
        if t == 0:
            for i in range(out.size):
                keep = drawn[i] <= last
                out[i] = (vector[i] if keep else np.float32(0)) * factor
                count += keep
        else:
            for i in range(out.size):
                keep = drawn[i] <= last
                out[i] += (vector[i] if keep else np.float32(0)) * factor
                count += keep
        kept[t] = count
    return kept


@compiled
def magnitudes(vectors, draws, limits):  # type: ignore[no-untyped-def]
    """Sums of magnitudes, all and kept: float64 (n, 2)."""
    sums = np.zeros((vectors.shape[0], 2))
    for t in range(vectors.shape[0]):
        for i in range(vectors.shape[1]):
            magnitude = np.float64(abs(vectors[t, i]))
            sums[t, 0] += magnitude
            sums[t, 1] += magnitude if draws[t, i] <= limits[t] else 0.0
    return sums


@method(
    title="DARE",
    reference=Reference("Yu et al., 2024", "2311.03099"),
    data="validation",
    random=True,
    scale=0.4,
    grid={"density": (0.1, 0.2, 0.3), "scale": tuple(step / 10 for step in range(1, 11))},
    note="MergeBench prints 30 pairs and not which; drop rates 0.9, 0.8, 0.7 by 10 scales are assumed.",
    tensor_total=norms,
    tensor_total_kernel=norms_kernel,
    kernel=kernel,
)
def dare(
    context: Tensors,
    *,
    density: Annotated[float | dict[str, float], Range(0.001, 1)] = 0.2,
    rescale: Rescale = "inv_keep",
    weights: float | dict[str, float] = 1.0,
    normalise: bool = False,
    elect_signs: bool = False,
) -> Tensor:
    """Drop entries at random, rescale the others, add.

    theta = theta_0 + scale * sum_t w_t m_t * tau_t / density, m_t ~ Bernoulli(density).

    Whether an entry is kept depends on the seed, the specialist's domain, the tensor's name and the entry's position alone,
    and what is kept at one density is kept at every higher one.

    Args:
        density: Fraction that is kept, 1 - p in the paper's terms.
        rescale: Divide what is kept by the density ("inv_keep"), restore each tensor's sum of magnitudes ("l1"), or neither ("none").
        weights: w_t, per domain or one for all; the paper has none.
        normalise: Divide by the sum of the weights.
        elect_signs: Add only the entries whose sign is that of the sum, as TIES does; `normalise` then counts their weights alone.
    """
    shares = per_domain(weights, context.domains, "dare.weights")
    sums = None if context.tensor_total is None else np.asarray(context.tensor_total)
    factor = factors(rescale, per_domain(density, context.domains, "dare.density"), shares, sums)
    kept = masks(context, density)
    context.observe(kept)
    dropped = torch.where(kept, context.vectors, 0.0)
    if elect_signs:
        scaled = [vector * number for vector, number in zip(dropped, factor, strict=True)]
        sign = elect(scaled)
        return merge_agreeing(scaled, shares, torch.where(sign == 0, 1.0, sign), "mean" if normalise else "sum")
    total = weighted_sum(dropped, factor, context.domains)
    return total / normaliser(shares, "dare") if normalise else total
