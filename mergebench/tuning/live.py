"""A live model whose weights become base + scale * direction, without a checkpoint or a new process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch

from mergebench.checkpoints.digest import PieceDigest, realised_digest, tensor_digest, values_digest
from mergebench.checkpoints.reader import Checkpoint
from mergebench.checkpoints.tensorfile import ITEM_BYTES, STORAGE
from mergebench.errors import MergebenchError
from mergebench.evaluation.backends.base import LanguageModel
from mergebench.evaluation.backends.probe import Probe, distance
from mergebench.kernels.bits import OVERFLOW
from mergebench.kernels.blocks import STORE
from mergebench.vectors.pieces import base_loader
from mergebench.vectors.walk import BLOCK, Chunk, chunks, ordered

Directions = Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]]
TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


class LiveWeights:
    """The weights of a language model that is held open for all candidates of a search.

    An installed candidate has the very weights that `merging.engine.merge` writes to disk: the same kernels compute them, and the sum is
    rounded once to the checkpoint's dtype. They are computed on the CPU, where the digest needs them anyway, and cross to a GPU in the
    checkpoint's dtype. Every installation is proven (`install`), and the first is made before any candidate: the base itself, after which
    the model must answer as it did when it was loaded.

    Args:
        lm: the model, loaded from the base's folder.
        base: the checkpoint that directions are added to.
        threads: threads that compute weights; they change nothing in the result.

    Raises:
        MergebenchError: the backend cannot replace weights, the checkpoint is another model's, or the base's own weights do not give
            the model that was loaded.
    """

    def __init__(self, lm: LanguageModel, base: Checkpoint, *, threads: int = 1) -> None:
        self.lm, self.base, self.threads = lm, base, threads
        self.weights = lm.live()
        absent = self.weights.unknown(base.names)
        if absent:
            raise MergebenchError(
                f"{base.folder} holds {absent[0]}, which the loaded model does not have; load the model from that folder."
            )
        self._base_digests: dict[str, str] = {}
        self._probe = Probe(lm)
        self._answers: dict[str, tuple[float, ...]] = {}
        self._last = ""
        loaded = self._probe.ask()
        self.install({}, 0.0)
        apart = distance(loaded, self._answers[self._last])
        if apart > self.weights.tolerance:
            raise MergebenchError(
                f"{lm.name} answers otherwise after the base's own weights were written over those that it had loaded (log-probabilities "
                f"differ by {apart:.3g}): set the backend of tuning to transformers, and report the release of the engine."
            )

    def install(self, directions: Directions, scale: float) -> str:
        """Write ``base + scale * direction`` for the tensors in `directions`, and the base's for all others; forget what was cached.

        Three things are then proven: the model holds what was written (`LiveModel.check`); fixed prompts are answered as they were when
        these weights were in the model before; and otherwise than with the weights that were in it last. Weights can differ and
        answer alike, so in that last case all that the model holds is read back.

        Args:
            directions: float32 tensors by name.
            scale: the scaling coefficient.

        Returns:
            The digest of the weights, the one that a merge with this direction and scale records (`realised_digest`).

        Raises:
            MergebenchError: the weights did not take effect, are not finite, or have other shapes than the base's.
        """
        found = dict(directions) if not isinstance(directions, Mapping) else directions
        self._require_shapes(found)
        digests: dict[str, str] = {}
        self.weights.install(self._tensors(found, scale, digests))
        digest = realised_digest(digests)
        self.weights.check()
        self._prove(digest, self._probe.ask())
        return digest

    def _prove(self, digest: str, answers: tuple[float, ...]) -> None:
        known = self._answers.setdefault(digest, answers)
        apart = distance(known, answers)
        if apart > self.weights.tolerance:
            raise MergebenchError(
                f"{self.lm.name} answers the probe otherwise than before with the same weights {digest} (log-probabilities differ by "
                f"{apart:.3g}): it holds on to something of other weights. Set the backend of tuning to transformers."
            )
        if self._last and digest != self._last and distance(self._answers[self._last], answers) == 0:
            self.weights.check(thorough=True)
        self._last = digest

    def _require_shapes(self, directions: Mapping[str, torch.Tensor]) -> None:
        for name in directions:
            shape, expected = tuple(directions[name].shape), self.base.tensors[name].shape
            if shape != expected:
                raise MergebenchError(
                    f"the merge gives {name} the shape {shape}, and the live model has {expected}: a merge that changes the vocabulary "
                    'cannot be tuned live; set merging.vocabulary to "base" or "refuse".'
                )

    def _tensors(self, directions: Mapping[str, torch.Tensor], scale: float, digests: dict[str, str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor of the candidate, and its digest into `digests`."""
        yield from self._merged(directions, scale, digests)
        for name in self.base.names:
            if name not in directions:
                if name not in self._base_digests:
                    self._base_digests[name] = values_digest(self.base.values(name), self.base.size(name))
                digests[name] = self._base_digests[name]
                yield name, self.base.tensor(name)

    def _merged(self, directions: Mapping[str, torch.Tensor], scale: float, digests: dict[str, str]) -> Iterator[tuple[str, torch.Tensor]]:
        """base + scale * direction: tensors one after the other, threads work on pieces of the next ones meanwhile."""
        pinned = self.weights.device.type == "cuda"
        outs: dict[str, torch.Tensor] = {}
        flat: dict[str, np.ndarray] = {}
        pieces: list[bytes] = []

        def tasks() -> Iterator[Chunk]:
            names = (name for name in self.base.names if name in directions)
            for chunk in chunks(self.base, names):
                if chunk.start == 0:
                    info = self.base.tensors[chunk.name]
                    outs[chunk.name] = torch.empty(info.shape, dtype=TORCH[info.dtype], pin_memory=pinned)
                    flat[chunk.name] = directions[chunk.name].reshape(-1).numpy()
                yield chunk

        def work(chunk: Chunk) -> tuple[Chunk, bytes]:
            return chunk, self._store(chunk, flat[chunk.name], scale, outs[chunk.name])

        for chunk, digest in ordered(tasks(), work, self.threads):
            pieces.append(digest)
            if chunk.stop == self.base.size(chunk.name):
                digests[chunk.name] = tensor_digest(pieces)
                pieces.clear()
                del flat[chunk.name]
                yield chunk.name, outs.pop(chunk.name)

    def _store(self, chunk: Chunk, direction: np.ndarray, scale: float, out: torch.Tensor) -> bytes:
        """Compute one chunk of a tensor into `out`; the digest of its bytes."""
        dtype = self.base.tensors[chunk.name].dtype
        values = out.view(-1).view(WORD[dtype]).numpy().view(STORAGE[dtype])[chunk.start : chunk.stop]
        load: Callable[[int, np.ndarray], None] = base_loader(self.base, *chunk)
        block, digest = np.empty(min(BLOCK, chunk.stop - chunk.start), np.float32), PieceDigest(ITEM_BYTES[dtype])
        for place in range(0, values.size, BLOCK):
            part = values[place : place + BLOCK]
            base = block[: part.size]
            load(place, base)
            start = chunk.start + place
            if STORE[dtype](base, direction[start : start + part.size], scale, part) >= OVERFLOW[dtype]:
                raise MergebenchError(f"Tensor {chunk.name!r} of the merge is not finite in {dtype}: leave out scales above {scale:g}.")
            digest.update(part)
        return digest.digests()


# numpy has no bfloat16: its values are handled as words of the same size.
WORD = {"BF16": torch.int16, "F16": torch.int16, "F32": torch.float32, "F64": torch.float64}
