"""The weights of a running vLLM engine, seen from the process that asks it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from mergebench.errors import MergebenchError
from mergebench.evaluation.backends.weights import LiveModel, Named, tolerance


class EngineWeights(LiveModel):
    """The weights of a `vllm.LLM`, reached through the methods that `vllm_worker` adds to its worker.

    The engine runs in this process (`VLLM_ENABLE_V1_MULTIPROCESSING=0`), so that tensors are handed over and not copied.

    Raises:
        MergebenchError: the engine is spread over several processes, or its weights are quantised.
    """

    def __init__(self, llm: Any) -> None:
        settings = llm.llm_engine.vllm_config
        if settings.parallel_config.world_size > 1:
            raise MergebenchError(
                f"the engine is spread over {settings.parallel_config.world_size} processes, and weights are swapped in one process only: "
                "tune with one GPU per engine, which holds models of up to 9 B parameters in bfloat16."
            )
        if settings.model_config.quantization:
            raise MergebenchError(
                f"the engine's weights are quantised ({settings.model_config.quantization}): swapped weights would not be those of a "
                "merge. Tune with the base's own weights."
            )
        self.llm = llm
        self.device = torch.device(self._call("device_of_weights"))
        self.tolerance = tolerance(self.device, settings.model_config.dtype)

    def unknown(self, names: Iterable[str]) -> list[str]:
        found: list[str] = self._call("unknown_weights", list(names))
        return found

    def install(self, tensors: Iterable[Named]) -> None:
        self._call("install_weights", tensors)

    def check(self, *, thorough: bool = False) -> None:
        self._call("check_weights", thorough)

    def _call(self, method: str, *arguments: Any) -> Any:
        [result] = self.llm.collective_rpc(method, args=arguments)
        return result
