"""Low-rank adapters: what PEFT is told, and their product added to the weights that they adapt."""

from collections.abc import Mapping
from typing import Any

import torch

from mergebench.errors import MergebenchError
from mergebench.training.settings import LoraSettings

PREFIX = "base_model.model."  # PEFT's name for the adapted model
ADAPTER = "default"


def peft_config(settings: LoraSettings | None) -> Any:
    """PEFT's configuration, or None without adapters.

    Raises:
        MergebenchError: PEFT is not installed.
    """
    if settings is None:
        return None
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise MergebenchError(f"lora needs the package peft, which cannot be imported here ({error}); install it.") from error
    targets = settings.targets if isinstance(settings.targets, str) else list(settings.targets)
    return LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )


def merged(state: Mapping[str, torch.Tensor], settings: LoraSettings) -> dict[str, torch.Tensor]:
    """The weights of an adapted model under the names of its base: W + alpha / rank * B A, computed in float32.

    Args:
        state: parameter name -> tensor, as PEFT names them.

    Raises:
        MergebenchError: an adapter is incomplete.
    """
    weights = {}
    for name, tensor in state.items():
        if ".lora_" in name:
            continue
        weights[name.removeprefix(PREFIX).replace(".base_layer.", ".")] = tensor
        module = name.removesuffix(".base_layer.weight")
        if module == name:
            continue
        try:
            a, b = (state[f"{module}.lora_{half}.{ADAPTER}.weight"] for half in "AB")
        except KeyError as error:
            raise MergebenchError(f"the adapter of {module} lacks {error}; nothing is exported.") from None
        product = b.detach().float() @ a.detach().float()
        weights[f"{module.removeprefix(PREFIX)}.weight"] = tensor.detach().float() + settings.alpha / settings.rank * product
    return weights
