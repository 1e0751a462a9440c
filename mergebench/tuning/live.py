"""A model whose weights are replaced in place by base + scale * direction, without a checkpoint or a new process."""

from collections.abc import Iterable
from typing import Any

import torch

from mergebench.checkpoints.digest import realised_digest, values_digest
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
        self._digests: dict[str, str] = {}
        self.targets: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
        absent = [name for name in base.names if name not in self.targets]
        if absent:
            raise MergebenchError(
                f"{base.folder} holds {absent[0]}, which the loaded model does not have; load the model from that folder."
            )

    def install(self, directions: Iterable[tuple[str, torch.Tensor]], scale: float) -> str:
        """Write ``base + scale * direction`` for the tensors in `directions`, and the base's for all others.

        Returns:
            The digest of the weights, the one that a merge with this direction and scale records (`realised_digest`).
        """
        digests = {}
        with torch.no_grad():
            for name, direction in directions:
                tensor = self.base.tensor(name)
                merged = apply(tensor, direction, scale).to(tensor.dtype)
                self.targets[name].copy_(merged)
                digests[name] = values_digest(merged.reshape(-1).view(torch.uint8).numpy(), merged.numel())
            for name in self.base.names:
                if name not in digests:
                    self.targets[name].copy_(self.base.tensor(name))
                    digests[name] = self._base_digest(name)
        return realised_digest(digests)

    def _base_digest(self, name: str) -> str:
        if name not in self._digests:
            self._digests[name] = values_digest(self.base.values(name), self.base.size(name))
        return self._digests[name]
