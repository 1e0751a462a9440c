"""Model Soup."""

import torch

from mergebench.merging.context import Tensors
from mergebench.merging.registry import Reference, method


@method(title="Model Soup", reference=Reference("Wortsman et al., 2022", "2203.05482"))
def model_soup(context: Tensors) -> torch.Tensor:
    """The uniform average of the specialists.

    theta = 1/n sum_t theta_t, that is theta_0 + 1/n sum_t tau_t.
    """
    return context.vectors.mean(0)
