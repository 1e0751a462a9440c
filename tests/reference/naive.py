"""The published formulas, in float64 numpy, on the whole model as one flat vector: slow, and easy to check by eye.

Nothing here is shared with the package. Each function takes the base, a list of specialists (dicts of float64 arrays) and what
the formula needs, and returns the merged model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

Model = dict[str, np.ndarray]


def flatten(model: Model) -> np.ndarray:
    return np.concatenate([model[name].ravel() for name in sorted(model)])


def unflatten(vector: np.ndarray, like: Model) -> Model:
    model, start = {}, 0
    for name in sorted(like):
        model[name] = vector[start : start + like[name].size].reshape(like[name].shape)
        start += like[name].size
    return model


def on_vectors(combine: Callable[..., np.ndarray]) -> Callable[..., Model]:
    """A method from its formula on flat task vectors: merged = base + combine(taus)."""

    def merge(base: Model, specialists: list[Model], **arguments) -> Model:
        origin = flatten(base)
        taus = [flatten(model) - origin for model in specialists]
        return unflatten(origin + combine(taus, **arguments), base)

    return merge


def model_soup(base: Model, specialists: list[Model], weights: list[float] | None = None) -> Model:
    shares = weights or [1.0] * len(specialists)
    return {name: sum(share * model[name] for share, model in zip(shares, specialists, strict=True)) / sum(shares) for name in base}


def random_direction(base: Model, specialists: list[Model], seed: int) -> Model:
    merged = {}
    for name, origin in base.items():
        soup = sum(model[name] - origin for model in specialists) / len(specialists)
        direction = np.array([gaussian(seed, name, i) for i in range(origin.size)]).reshape(origin.shape)
        merged[name] = origin + direction * np.linalg.norm(soup) / np.linalg.norm(direction)
    return merged


def gaussian(seed: int, name: str, i: int) -> float:
    """Entry i of a tensor: SplitMix64 after i + 1 steps, of its 65,536 equally likely upper parts the middle quantile."""
    every = 2**64
    key = int.from_bytes(hashlib.sha256(f"{seed}\0random_direction\0{name}".encode()).digest()[:8], "little")
    state = (key + (i + 1) * 0x9E3779B97F4A7C15) % every
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % every
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % every
    return NormalDist().inv_cdf((((state ^ (state >> 31)) >> 48) + 0.5) / 2**16)


@on_vectors
def task_arithmetic(taus, scale, weights=None, normalise=False):
    shares = weights or [1.0] * len(taus)
    return scale * sum(share * tau for share, tau in zip(shares, taus, strict=True)) / (sum(shares) if normalise else 1)


def fisher(
    base: Model,
    specialists: list[Model],
    fishers: list[Model],
    normalise: bool,
    floor: float,
    smoothing: str = "floor",
    weights: Sequence[float] | None = None,
) -> Model:
    flat = [flatten(each) for each in fishers]
    if normalise:
        flat = [each / np.linalg.norm(each) for each in flat]
    raised = [each + floor if smoothing == "add" else np.maximum(each, floor) for each in flat]
    weighted = [w * each for w, each in zip(weights or [1.0] * len(raised), raised, strict=True)]
    models = [flatten(model) for model in specialists]
    merged = sum(weight * model for weight, model in zip(weighted, models, strict=True)) / sum(weighted)
    return unflatten(merged, base)


def regmean(base: Model, specialists: list[Model], grams: list[Model], reduction: float) -> Model:
    merged = model_soup(base, specialists)
    for name in grams[0]:
        left = np.zeros_like(grams[0][name])
        right = np.zeros(base[name].T.shape)
        for gram, model in zip(grams, specialists, strict=True):
            scaled = np.where(np.eye(len(left)) == 1, gram[name], reduction * gram[name])
            left += scaled
            right += scaled @ model[name].T
        merged[name] = (np.linalg.inv(left) @ right).T
    return merged


# On inputs that no layer changes, merging layer after layer is RegMean.
regmean_plus_plus = regmean


def largest(tau: np.ndarray, density: float, ties: str = "all", count: str = "nearest") -> np.ndarray:
    """The k largest entries; zeros are not entries. Of those equal to the k-th: all, none if there are too many, or the first."""
    share = density * tau.size
    asked = {"nearest": round(share), "floor": int(share), "floor_or_one": int(share) or int(share > 0), "above": int(share) + 1}[count]
    wanted = min(asked, np.count_nonzero(tau))
    if wanted == 0:
        return np.zeros(tau.shape, bool)
    magnitude = np.abs(tau)
    falling = np.sort(magnitude)[::-1]
    if ties == "all":
        return magnitude >= falling[wanted - 1]
    if ties == "strict":
        return magnitude > (falling[wanted] if wanted < tau.size else 0)
    mask = magnitude > falling[wanted - 1]
    mask[np.flatnonzero(magnitude == falling[wanted - 1])[: wanted - mask.sum()]] = True
    return mask


def trim(taus, density, ties="all", count="nearest", sizes=None):
    """The kept entries of each task vector, over the whole model or, where sizes of tensors are given, in each tensor."""
    densities = density if isinstance(density, list) else [density] * len(taus)
    parts = [np.split(tau, np.cumsum(sizes)[:-1]) if sizes else [tau] for tau in taus]
    masks = [np.concatenate([largest(part, share, ties, count) for part in each]) for each, share in zip(parts, densities, strict=True)]
    return [np.where(mask, tau, 0) for mask, tau in zip(masks, taus, strict=True)]


def agree(values, shares, aggregate, zero_sign):
    """TIES' second and third step on trimmed task vectors, already multiplied by their weights."""
    trimmed = np.stack(values)
    sign = np.sign(trimmed.sum(0))
    fallback = {"majority": np.sign(sign.sum()), "positive": 1, "drop": 0}[zero_sign]
    merged = np.zeros(sign.shape)
    for place in range(len(sign)):
        elected = sign[place] or fallback
        rows = [row for row in range(len(trimmed)) if trimmed[row, place] != 0 and np.sign(trimmed[row, place]) == elected]
        if rows:
            agreeing = [trimmed[row, place] for row in rows]
            divisor = sum(shares[row] for row in rows) or 1
            merged[place] = {"mean": sum(agreeing) / divisor, "sum": sum(agreeing), "max": max(agreeing, key=abs)}[aggregate]
    return merged


@on_vectors
def ties(taus, density, scale, aggregate="mean", zero_sign="majority", ties="all", count="nearest", sizes=None, weights=None):
    shares = weights or [1.0] * len(taus)
    trimmed = trim(taus, density, ties, count, sizes)
    return scale * agree([share * tau for share, tau in zip(shares, trimmed, strict=True)], shares, aggregate, zero_sign)


@on_vectors
def dare(taus, masks, density, scale, rescale="inv_keep", weights=None, normalise=False, elect_signs=False, sizes=None):
    shares = weights or [1.0] * len(taus)
    dropped = [mask * tau for mask, tau in zip(masks, taus, strict=True)]
    if rescale == "inv_keep":
        dropped = [tau / density for tau in dropped]
    if rescale == "l1":
        edges = np.cumsum(sizes)[:-1]
        pairs = [list(zip(np.split(tau, edges), np.split(kept, edges), strict=True)) for tau, kept in zip(taus, dropped, strict=True)]
        dropped = [np.concatenate([kept * (np.abs(tau).sum() / (np.abs(kept).sum() or np.inf)) for tau, kept in each]) for each in pairs]
    weighted = [share * tau for share, tau in zip(shares, dropped, strict=True)]
    if elect_signs:
        return scale * agree(weighted, shares, "mean" if normalise else "sum", "positive")
    return scale * sum(weighted) / (sum(shares) if normalise else 1)


@on_vectors
def consensus_ta(taus, thresholds, agreement, scale):
    total = sum(taus)
    masks = [np.abs(tau) > threshold * np.abs(total - tau) for tau, threshold in zip(taus, thresholds, strict=True)]
    return scale * np.where(sum(mask.astype(int) for mask in masks) >= agreement, total, 0)


@on_vectors
def single_task(taus, index, threshold):
    total = sum(taus)
    return np.where(np.abs(taus[index]) > threshold * np.abs(total - taus[index]), total, 0)


@on_vectors
def localize_and_stitch(taus, masks):
    overlap = np.maximum(sum(mask.astype(int) for mask in masks), 1)
    return sum(mask * tau / overlap for mask, tau in zip(masks, taus, strict=True))


@on_vectors
def dataless_localize_and_stitch(taus, density, ties="all", count="nearest", sizes=None):
    trimmed = trim(taus, density, ties, count, sizes)
    overlap = np.maximum(sum((tau != 0).astype(int) for tau in trimmed), 1)
    return sum(tau / overlap for tau in trimmed)
