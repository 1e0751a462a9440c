"""The loss of a causal language model on the responses of examples, without the logits of all tokens at once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from mergebench.training.examples import IGNORED, Example, collate

# Response tokens whose logits exist at a time: 1024 of Gemma's 256,000 are a gigabyte in float32.
TOKENS = 1024


def response_loss(model: Any, examples: Sequence[Example], pad_token_id: int) -> torch.Tensor:
    """The negative log-likelihood of the response tokens, added up over the examples."""
    return negative_log_likelihood(model, *response_states(model, examples, pad_token_id))


def response_states(model: Any, examples: Sequence[Example], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the head is given at each position that predicts a response token, (tokens, width), and these tokens' ids, (tokens,)."""
    device = next(model.parameters()).device
    batch = {name: part.to(device) for name, part in collate(examples, pad_token_id).items()}
    labels = batch.pop("labels")[:, 1:]
    states = model.get_decoder()(**batch, use_cache=False).last_hidden_state[:, :-1]
    chosen = labels != IGNORED
    return states[chosen], labels[chosen]


def logits(model: Any, states: torch.Tensor) -> torch.Tensor:
    """The logits of `response_states`, in at least float32."""
    values = model.get_output_embeddings()(states)
    cap = getattr(model.config, "final_logit_softcapping", None)
    if cap is not None:
        values = cap * torch.tanh(values / cap)
    return values.to(torch.promote_types(values.dtype, torch.float32))


def negative_log_likelihood(model: Any, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """That of the targets, int64 (tokens,), added up.

    The head is applied to `TOKENS` tokens at a time, and once more in the backward pass.
    """

    def of(states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits(model, states), targets, reduction="sum")

    parts = zip(states.split(TOKENS), targets.split(TOKENS), strict=True)
    return torch.stack([checkpoint(of, *part, use_reentrant=False) for part in parts]).sum()


def recompute_layers(model: Any) -> None:
    """Keep only the inputs of the decoder's layers in a forward pass, and compute the rest again in the backward pass.

    Everything inside the layers stays in evaluation mode.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    model.gradient_checkpointing_enable({"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True  # of this module alone: it decides about recomputation, its children about dropout
