"""The published formulas, in float64 numpy, on the whole model as one flat vector: slow, and easy to check by eye.

Nothing here is shared with the package. Each function takes the base, a list of specialists (dicts of float64 arrays) and what
the formula needs, and returns the merged model.
"""

from __future__ import annotations

from collections.abc import Callable

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


def model_soup(base: Model, specialists: list[Model]) -> Model:
    return {name: sum(model[name] for model in specialists) / len(specialists) for name in base}


@on_vectors
def task_arithmetic(taus, scale):
    return scale * sum(taus)


def fisher(base: Model, specialists: list[Model], fishers: list[Model], normalise: bool, floor: float) -> Model:
    flat = [flatten(each) for each in fishers]
    if normalise:
        flat = [each / np.linalg.norm(each) for each in flat]
    weights = [np.maximum(each, floor) for each in flat]
    models = [flatten(model) for model in specialists]
    merged = sum(weight * model for weight, model in zip(weights, models, strict=True)) / sum(weights)
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


def largest(tau: np.ndarray, density: float) -> np.ndarray:
    """Which entries are at least as large as the k-th largest, k = round(density * size); zeros are not entries."""
    count = round(density * tau.size)
    if count == 0:
        return np.zeros(tau.shape, bool)
    cut = np.sort(np.abs(tau))[::-1][count - 1]
    return (np.abs(tau) >= cut) & (tau != 0)


@on_vectors
def ties(taus, density, scale, aggregate="mean", zero_sign="majority"):
    trimmed = np.stack([np.where(largest(tau, density), tau, 0) for tau in taus])
    sign = np.sign(trimmed.sum(0))
    fallback = {"majority": np.sign(sign.sum()), "positive": 1, "drop": 0}[zero_sign]
    merged = np.zeros(sign.shape)
    for place in range(len(sign)):
        elected = sign[place] or fallback
        agreeing = [value for value in trimmed[:, place] if value != 0 and np.sign(value) == elected]
        if agreeing:
            combine = {"mean": np.mean, "sum": np.sum, "max": lambda values: max(values, key=abs)}[aggregate]
            merged[place] = combine(agreeing)
    return scale * merged


@on_vectors
def dare(taus, masks, density, scale):
    return scale * sum(mask * tau / density for mask, tau in zip(masks, taus, strict=True))


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
def dataless_localize_and_stitch(taus, density):
    masks = [largest(tau, density) for tau in taus]
    overlap = np.maximum(sum(mask.astype(int) for mask in masks), 1)
    return sum(mask * tau / overlap for mask, tau in zip(masks, taus, strict=True))
