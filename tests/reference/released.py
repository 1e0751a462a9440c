"""What the released MergeBench code (uiuctml/MergeBench, b245648) computes, written a second time on flat bfloat16 vectors.

Slow, and close to the release line by line, its defects included. Nothing here is shared with the package. Models are dicts of bfloat16
tensors; specialists come in the release's order: instruction, math, coding, safety, multilingual.
"""

from __future__ import annotations

import torch

Model = dict[str, torch.Tensor]


def flatten(model: Model) -> torch.Tensor:
    """`select_trainable_params` and `flatten_ckpt_into_vec`: all but embeddings, an untied head included."""
    return torch.cat([value.flatten() for name, value in model.items() if "embed" not in name])


def add(model: Model, vector: torch.Tensor) -> Model:
    """`vector_to_state_dict`: all but embeddings and the head, in place in the release."""
    written, start = dict(model), 0
    # The head comes last in the release's models: what is taken from the vector before it is not shifted.
    for name in sorted(model, key=lambda name: "lm_head" in name):
        if "embed" not in name and "lm_head" not in name:
            part = vector[start : start + model[name].numel()].reshape(model[name].shape)
            written[name] = (model[name] + part).to(torch.bfloat16)
            start += model[name].numel()
    return written


def ordered(model: Model) -> Model:
    """The head last, as in the release's models."""
    return {name: model[name] for name in sorted(model, key=lambda name: ("lm_head" in name, name))}


def vectors(base: Model, specialists: list[Model]) -> list[torch.Tensor]:
    return [flatten(model) - flatten(base) for model in specialists]


def task_arithmetic(base: Model, specialists: list[Model], scale: float) -> Model:
    return add(base, scale * sum(vectors(base, specialists)))


def ties(base: Model, specialists: list[Model], density: float, scale: float) -> Model:
    stacked = torch.stack(vectors(base, specialists))
    size = stacked.shape[1]
    edges = stacked.abs().kthvalue(size - int(size * density), dim=1, keepdim=True).values
    trimmed = stacked * (stacked.abs() >= edges)
    sign = torch.sign(trimmed.sum(dim=0))
    sign[sign == 0] = torch.sign(sign.sum())
    selected = trimmed * torch.where(sign.unsqueeze(0) > 0, trimmed > 0, trimmed < 0)
    return add(base, scale * torch.sum(selected, dim=0))


def consensus_ta(base: Model, specialists: list[Model], scale: float) -> Model:
    taus = vectors(base, specialists)
    total = sum(taus)
    count = sum((torch.abs(tau) > torch.abs(total - tau) * 0.2).to(torch.int16) for tau in taus)
    return add(base, total * (count >= 2) * scale)


def average_masks(masks: list[torch.Tensor]) -> list[torch.Tensor]:
    """`Stitcher.get_average_masks`: the sum stands outside the inner loop."""
    averaged = []
    for i in range(len(masks)):
        for j in range(len(masks)):
            if i != j:
                intersect = torch.logical_and(masks[i], masks[j])
        weight = masks[i] + intersect
        averaged.append(torch.reciprocal(weight).masked_fill(weight == 0, 0))
    return averaged


def localize_and_stitch(base: Model, specialists: list[Model], density: float | None = None, masks: list | None = None) -> Model:
    """Thresholds from `torch.topk`, or given masks; `Localizer.interpolate_model` changes the base that the next task starts from."""
    found = []
    for place, specialist in enumerate(specialists):
        (tau,) = vectors(base, [specialist])
        if masks is None:
            assert density is not None
            edge = torch.topk(tau.abs(), int(density * len(tau))).values.min()
            mask = (tau.abs() >= edge).to(torch.bfloat16)
        else:
            mask = masks[place].to(torch.bfloat16)
        found.append(mask)
        base = add(base, tau * mask)
    total = torch.zeros_like(flatten(base))
    for weight, tau in zip(average_masks(found) if len(found) > 1 else found, vectors(base, specialists), strict=True):
        total += weight * tau
    return add(base, total)


def regmean(base: Model, specialists: list[Model], grams: list[Model], reduction: float) -> Model:
    merged = dict(base)
    for name in base:
        if "embed" in name or "lm_head" in name:
            continue
        if name not in grams[0]:
            total = specialists[0][name].clone()
            for model in specialists[1:]:
                total.add_(model[name])
            merged[name] = total.div(len(specialists))
            continue
        lefts, rights = [], []
        for gram, model in zip(grams, specialists, strict=True):
            value = gram[name].to(torch.bfloat16)
            weight = torch.diag(torch.ones(len(value), dtype=value.dtype) - reduction)
            left = value * (weight + torch.zeros_like(weight).fill_(reduction))
            lefts.append(left)
            rights.append(torch.matmul(left, model[name].transpose(0, 1)))
        left, right = lefts[0].clone(), rights[0].clone()
        for one, other in zip(lefts[1:], rights[1:], strict=True):
            left.add_(one)
            right.add_(other)
        wide = left.float()
        singular = torch.linalg.cond(wide) > 1e8 or bool((torch.diag(wide) == 0).any())
        inverse = (torch.linalg.pinv(wide) if singular else torch.inverse(wide)).to(right.dtype)
        merged[name] = torch.matmul(inverse, right).transpose(0, 1)
    return merged


def fisher(base: Model, specialists: list[Model], fishers: list[Model]) -> Model:
    merged = dict(base)
    for name in base:
        if name.startswith("model.embed"):
            continue
        weights = torch.stack([each[name] for each in fishers]) + 1.0e-10
        parameters = torch.stack([model[name] for model in specialists])
        merged[name] = ((parameters * weights).sum(0) / weights.sum(0)).to(torch.bfloat16)
    return merged
