"""A LoRA adapter (Hu et al., 2021) folded into its base: W + s B A, with s = alpha / r (alpha / sqrt(r) for rsLoRA).

Read from the files that peft writes; peft itself is not needed. What cannot be folded by that formula is refused.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch

from mergebench.checkpoints.reader import ADAPTER, Checkpoint
from mergebench.checkpoints.tensorfile import TensorFile
from mergebench.checkpoints.writer import CheckpointWriter
from mergebench.errors import MergebenchError

WEIGHTS = "adapter_model.safetensors"
PREFIX, A, B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
# Keys of adapter_config.json that change the formula, with the values that do not.
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "use_dora": (False, None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
}


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / ADAPTER).is_file() and not (folder / "config.json").is_file()


def fold(folder: Path, base: Checkpoint, out: Path) -> dict[str, Any]:
    """Write the base with the adapter of `folder` folded in to `out`; returns rank, scale and the number of tensors changed.

    Raises:
        MergebenchError: the adapter is of another kind, incomplete, or of another base.
    """
    settings = _settings(folder)
    scale = settings["lora_alpha"] / (math.sqrt(settings["r"]) if settings.get("use_rslora") else settings["r"])
    if not (folder / WEIGHTS).is_file():
        raise MergebenchError(f"{folder} is an adapter without {WEIGHTS}: save it in safetensors.")
    file = TensorFile(folder / WEIGHTS)
    names = {name.removeprefix(PREFIX).removesuffix(A) for name in file.tensors if name.endswith(A)}
    known = {f"{PREFIX}{name}{part}" for name in names for part in (A, B)}
    if not names or known != set(file.tensors):
        odd = min(known ^ set(file.tensors), default="no tensor at all")
        advice = "fold it into its base with peft's merge_and_unload"
        raise MergebenchError(f"{folder / WEIGHTS} is not a plain LoRA adapter ({odd}); {advice}.")
    if strangers := sorted(name for name in names if f"{name}.weight" not in base.tensors):
        raise MergebenchError(f"{folder} adapts {strangers[0]}, which the base {base.folder} has not got; use an adapter of this base.")
    with CheckpointWriter(base, out) as writer:
        for tensor in base.names:
            name = tensor.removesuffix(".weight")
            if name not in names:
                writer.write(tensor, base.tensor(tensor))
                continue
            low, high = (file.tensor(f"{PREFIX}{name}{part}").float() for part in (A, B))
            weight = base.tensor(tensor)
            if (high.shape[0], low.shape[1]) != tuple(weight.shape) or high.shape[1] != low.shape[0]:
                raise MergebenchError(
                    f"{folder} adapts {tensor} by {list(high.shape)} x {list(low.shape)}, the base has {list(weight.shape)}; "
                    "use an adapter of this base."
                )
            if not bool(torch.isfinite(low).all() and torch.isfinite(high).all()):
                raise MergebenchError(f"{folder} holds NaN or infinite values for {tensor}; its training diverged: use another checkpoint.")
            writer.write(tensor, weight.float() + scale * (high @ low))
    return {"rank": settings["r"], "scale": scale, "tensors": len(names)}


def _settings(folder: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MergebenchError(f"{folder / ADAPTER} cannot be read ({error}); make or fetch the adapter again.") from error
    for key, plain in PLAIN.items():
        if settings.get(key) not in plain and not (key not in settings and None in plain):
            raise MergebenchError(
                f"{folder} is an adapter with {key} {settings.get(key)!r}, which is not folded here: fold it into its base with peft's "
                "merge_and_unload."
            )
    if not all(isinstance(settings.get(key), int | float) and settings[key] > 0 for key in ("r", "lora_alpha")):
        raise MergebenchError(f"{folder / ADAPTER} has no r and lora_alpha above 0; make or fetch the adapter again.")
    return settings
