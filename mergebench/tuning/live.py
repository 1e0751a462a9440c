"""A model whose weights are replaced in place by base + scale * direction, without a checkpoint or a new process."""

from collections.abc import Iterable
from typing import Any

import torch

from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.merging.engine import apply


class LiveWeights:
    """The parameters of a live `transformers` model, by their names in the checkpoint.

    An installed candidate has the very weights that `merging.engine.merge` writes to disk: the sum is rounded
    once to the checkpoint's dtype, and that number is cast to the dtype of the live model.

    Args:
        model: the module that the evaluation uses; a tied output head shares its tensor with the embedding.
        base: the checkpoint that directions are added to.
    """

    def __init__(self, model: Any, base: Checkpoint) -> None:
        self.model = model
        self.base = base
        self.targets: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
        absent = [name for name in base.names if name not in self.targets]
        if absent:
            raise MergebenchError(
                f"{base.folder} holds {absent[0]}, which the loaded model does not have; load the model from that folder."
            )

    def install(self, directions: Iterable[tuple[str, torch.Tensor]], scale: float) -> None:
        """Write ``base + scale * direction`` for the tensors in `directions`, and the base's for all others."""
        merged = set()
        with torch.no_grad():
            for name, direction in directions:
                tensor = self.base.tensor(name)
                self.targets[name].copy_(apply(tensor, direction, scale).to(tensor.dtype))
                merged.add(name)
            for name in self.base.names:
                if name not in merged:
                    self.targets[name].copy_(self.base.tensor(name))
