"""Publish trained weights as a Hugging Face folder that differs from its base in the weights alone."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mergebench.checkpoints.digest import weights_digest
from mergebench.checkpoints.layout import Dtype
from mergebench.checkpoints.reader import Checkpoint
from mergebench.checkpoints.writer import CheckpointWriter
from mergebench.errors import MergebenchError


@dataclass(frozen=True)
class Export:
    """What was written; `relative_norm` is ||task vector|| / ||base|| over all parameters, before rounding."""

    weights_digest: str
    dtype: str
    tensors: int
    parameters: int
    relative_norm: float

    def facts(self) -> dict[str, Any]:
        return asdict(self)


def export_weights(state: Mapping[str, torch.Tensor], base: Path, out: Path, dtype: Dtype = "base") -> Export:
    """Check a state dict against its base, then write it with the base's names, configuration and tokenizer.

    Args:
        state: parameter name -> tensor, on any device.
        base: weights folder of the base.
        out: existing empty folder.
        dtype: ``base`` keeps the dtype of each tensor of the base; ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        MergebenchError: a tensor is missing, unknown, of another shape, or not finite.
    """
    origin = Checkpoint(base)
    check(state, origin)
    squares = base_squares = parameters = 0.0
    with CheckpointWriter(origin, out, dtype=dtype) as writer:
        for name in origin.names:
            trained = state[name].detach().cpu()
            before = origin.tensor(name).double()
            squares += float((trained.double() - before).square().sum())
            base_squares += float(before.square().sum())
            parameters += trained.numel()
            writer.write(name, trained)
    return Export(
        weights_digest=weights_digest(out),
        dtype=", ".join(sorted(Checkpoint(out).dtypes)),
        tensors=len(origin.names),
        parameters=int(parameters),
        relative_norm=round(math.sqrt(squares / base_squares), 6) if base_squares else 0.0,
    )


def check(state: Mapping[str, torch.Tensor], base: Checkpoint) -> None:
    """Refuse weights that lack a tensor of the base, have another shape, hold NaN, or have tensors of their own.

    A name that the base lacks is accepted only where it is tied to a tensor that the base has (``lm_head.weight``
    of a tied model).
    """
    if missing := sorted(base.tensors.keys() - state.keys()):
        raise MergebenchError(
            f"The trained weights lack {len(missing)} tensors of {base.folder}, {missing[0]!r} first: "
            "the model was not gathered completely, so nothing is exported."
        )
    storages = {state[name].data_ptr() for name in base.tensors}
    unknown = sorted(n for n in state.keys() - base.tensors.keys() if state[n].data_ptr() not in storages)
    if unknown:
        raise MergebenchError(
            f"The trained weights have tensors that {base.folder} lacks, {unknown[0]!r} first; "
            "train from this base, or name the base that belongs to these weights."
        )
    for name, info in base.tensors.items():
        if tuple(state[name].shape) != info.shape:
            raise MergebenchError(
                f"{name} has shape {list(state[name].shape)}, but {list(info.shape)} in {base.folder}; "
                "keep the vocabulary and the architecture of the base."
            )
        if not bool(torch.isfinite(state[name]).all()):
            raise MergebenchError(f"{name} holds NaN or infinite values: training diverged; lower the learning rate.")
