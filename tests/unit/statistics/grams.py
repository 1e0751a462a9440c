"""Gram matrices as they are defined, and how far others are from them."""

from __future__ import annotations

from typing import Any

import torch


def inputs(model: Any, examples) -> dict[str, torch.Tensor]:
    """The inputs of each linear layer at all tokens, float64 (tokens, d), from unpadded single rows; a tied head is none."""
    own = {name for name, _ in model.named_parameters()}
    found: dict[str, list[torch.Tensor]] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: found.setdefault(f"{name}.weight", []).append(args[0][0].double()))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and f"{name}.weight" in own
    ]
    with torch.no_grad():
        for example in examples:
            model(torch.tensor([example.input_ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(rows) for name, rows in found.items()}


def explicit(model: Any, examples) -> dict[str, torch.Tensor]:
    """X^T X / N of each linear layer on its own, float64."""
    return {name: x.T @ x / len(x) for name, x in inputs(model, examples).items()}


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest error of an entry, relative to what its two columns allow: |G_ij| <= sqrt(G_ii G_jj)."""
    scale = expected.diagonal().sqrt()
    return float(((found.double() - expected).abs() / (scale[:, None] * scale)).max())
