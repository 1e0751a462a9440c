"""The stitching step that both variants of Localize-and-Stitch share."""

import torch


def stitch(vectors: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """sum_t gamma_t * tau_t / sum_j gamma_j: the mean, at each position, of the task vectors that selected it.

    Args:
        vectors: Task vectors, float32 (n, *shape).
        masks: gamma, bool (n, *shape).

    Returns:
        float32 (*shape); zero where no task selected the position.
    """
    return torch.where(masks, vectors, 0.0).sum(0) / masks.sum(0).clamp_min(1)
