"""Share optimizer states, gradients and weights among the processes with DeepSpeed's ZeRO (Rajbhandari et al., 2020).

The configurations are `deepspeed/zero2.json` and `zero3.json`; what they leave ``"auto"`` follows from the settings.
The processes are those of `mergebench.launch`; DeepSpeed's own launcher is not used.
"""

import json
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from mergebench.errors import MergebenchError
from mergebench.training import distributed
from mergebench.training.settings import TrainingSettings

CONFIGURATIONS = Path(__file__).with_name("deepspeed")


def configuration(settings: TrainingSettings) -> dict[str, Any] | None:
    """What DeepSpeed is told, or None where nothing is sharded."""
    if settings.sharding == "none":
        return None
    values: dict[str, Any] = json.loads((CONFIGURATIONS / f"{settings.sharding}.json").read_text(encoding="utf-8"))
    zero = values["zero_optimization"]
    if settings.offload == "optimizer":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if not torch.cuda.is_available():
        zero["overlap_comm"] = False  # there are no streams to overlap
    return values


def start(settings: TrainingSettings) -> None:
    """Join the process group through DeepSpeed, before its configuration is read and the model is loaded.

    DeepSpeed divides the weights while they are loaded, and would else believe that this process is alone.

    Raises:
        MergebenchError: DeepSpeed is not installed.
    """
    if settings.sharding == "none":
        return
    on_gpu = torch.cuda.is_available()
    for name, value in _alone().items():
        os.environ.setdefault(name, value)
    try:
        import deepspeed
        import deepspeed.ops
    except ImportError as error:
        raise MergebenchError(f"sharding: {settings.sharding} needs DeepSpeed, which cannot be imported ({error}); install it.") from error
    if on_gpu:
        torch.cuda.set_device(distributed.device())  # else the first collectives of all processes are on the first GPU
    else:
        # An all-reduce through shared memory, which would be compiled at the first use; gloo does it as well.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # DeepSpeed calls collectives by names that torch has since changed, each time with a warning.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    deepspeed.init_distributed(dist_backend="nccl" if on_gpu else "gloo", auto_mpi_discovery=False, verbose=False)


def _alone() -> dict[str, str]:
    """The place of a process that was started on its own."""
    if "RANK" in os.environ:
        return {}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in place.items()}


def gathered(model: Any) -> Mapping[str, torch.Tensor]:
    """The whole weights of a model that DeepSpeed trains, in the main process; all processes must ask.

    Returns float32 tensors on the CPU by parameter name, those that the optimizer updates (and not their rounded copies);
    in the other processes an empty mapping. One parameter at a time is whole on the accelerator.
    """
    return {name: tensor for name, tensor in _whole(model) if distributed.is_main()}


def _whole(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    found: dict[int, torch.Tensor] = {}  # tied parameters have several names and one tensor
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) not in found:
            found[id(parameter)] = _gathered(parameter)
        yield name, found[id(parameter)]


def _gathered(parameter: Any) -> torch.Tensor:
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param

    updated = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
    if updated is None:  # frozen: no optimizer has it
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            updated = parameter.detach().clone()
    return updated.detach().reshape(getattr(parameter, "ds_shape", parameter.shape)).to("cpu", torch.float32, copy=True)
