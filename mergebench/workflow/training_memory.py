"""Memory of a training job, from its settings and the parameters of its base: what the GPUs share, and what each of them has.

Full fine-tuning in bfloat16 with AdamW keeps 16 bytes per parameter: 2 of weights, 2 of gradients, and 12 of optimizer states (float32
weights and two moments). Without sharding every GPU has all of it; ZeRO-2 shares gradients and optimizer states; ZeRO-3 the
weights too (Rajbhandari et al., 2020, https://arxiv.org/abs/1910.02054, section 5).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WEIGHT, GRADIENT, OPTIMIZER = 2, 2, 12  # bytes per parameter
ADAPTED = 0.02  # share of the parameters that adapters train (rank 16 on all layers of an 8 B model: 0.005)
GATHERED = 3e9  # bytes of weights that ZeRO-3 has gathered at once: what is in use (at most 1e9 parameters) and what is fetched ahead
TOKEN = 1_000_000  # bytes of one trained token: the layers' inputs, and its part of the chunks in which logits are made
# Bytes of one token's activations by the root of the parameters (width times depth grows like it): Gemma-2-2b 5 MB, Llama-3.1-8B 8 MB.
KEPT = {"none": 100, "selective": 50, "full": 0}
MOST_ON_A_NODE = 8  # processes of a node, which share what is offloaded to its memory


@dataclass(frozen=True)
class Memory:
    """Bytes that the GPUs of a job share, that each has, and that each process adds in the host's memory."""

    shared: float
    each: float
    host: float


def memory(settings: Mapping[str, Any], parameters: int, tokens: int) -> Memory:
    """Memory of a training job.

    Args:
        settings: of SFT or GRPO, as in a spec.
        parameters: of the base.
        tokens: of one forward pass.
    """
    trained = parameters * (ADAPTED if settings["lora"] else 1.0)
    weights, gradients, optimizer = WEIGHT * parameters, GRADIENT * trained, OPTIMIZER * trained
    activations = tokens * (TOKEN + KEPT[settings["activation_checkpointing"]] * math.sqrt(parameters))
    offloaded = optimizer if settings["offload"] == "optimizer" else 0.0
    states = gradients + optimizer - offloaded
    host = offloaded / MOST_ON_A_NODE
    if settings["sharding"] == "zero3":
        return Memory(weights + states, min(weights, GATHERED) + activations, host)
    if settings["sharding"] == "zero2":
        return Memory(states, weights + activations, host)
    return Memory(1.0, weights + states + activations, host)  # a byte to share: the job runs on GPUs, as many as wanted
