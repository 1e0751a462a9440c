"""What an engine computes with."""

from typing import Any

import torch

from mergebench.evaluation.backends.vllm_worker import is_packed, layer_of, parameters, read_columns


def model_of(lm: Any) -> Any:
    """The model inside an engine of one process."""
    [model] = lm.llm.collective_rpc(lambda worker: worker.model_runner.get_model())
    return model


def everything(lm: Any) -> dict[str, torch.Tensor]:
    """All that the engine computes with: weights, matrices as their layers apply them, and buffers."""
    found = {}
    model = model_of(lm)
    for name, parameter in parameters(model).items():
        layer = layer_of(model, name)
        if parameter.numel():
            found[name] = parameter.clone()
        if is_packed(layer):
            width = layer.weight.shape[1] if layer.weight.numel() else layer.input_size
            found[f"{name}, as it is applied"] = read_columns(layer, torch.arange(width), width, torch.float32)
    return found | {name: buffer.clone() for name, buffer in model.named_buffers()}
