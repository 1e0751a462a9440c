"""What runs inside vLLM's worker: a checkpoint's tensors over the weights of a running engine, and what it computes with, read back.

vLLM mixes the class into its worker by its name (`worker_extension_cls`). Tensors go through the loaders of vLLM's own model, as at a
start: they fuse (q, k and v; gate and up), pad and cast. Results are copied to the storages of before, which CUDA graphs point to.

On a CPU vLLM packs the matrix of a linear layer into a form that cannot be read, and drops it. The layer itself is asked then: applied to
the unit vector of an input it gives that column of its matrix, exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from mergebench.evaluation.backends.weights import MODULUS, Named, checksum, require_all, require_equal

# Columns of a packed matrix that are read back after each swap. Each touches every row, and so every tensor that the matrix is fused of.
COLUMNS = 16
EMBEDDING, HEAD = "embed_tokens.weight", "lm_head.weight"


class WeightInstaller:
    """Methods that vLLM's worker gets; `collective_rpc` calls them by name."""

    model_runner: Any
    reload_weights: Any

    def unknown_weights(self, names: list[str]) -> list[str]:
        """Those names that the model has no place for."""
        model = self.model_runner.get_model()
        live = parameters(model)
        return [name for name in names if fused_name(model, name) not in live]

    def install_weights(self, tensors: Iterable[Named]) -> None:
        """Write a whole checkpoint over the weights; see `LiveModel.install`."""
        model = self.model_runner.get_model()
        before = _storages(model)
        expected = Expected(model, self.model_runner.device)
        self.reload_weights(weights_iterator=expected.noting(tensors))
        for name in parameters(model):
            if name.endswith(HEAD):
                # A tied head on a CPU has a packed copy of the embedding, which reloading does not renew.
                head = layer_of(model, name)
                head.quant_method.process_weights_after_loading(head)
        require_all([name for name in parameters(model) if expected.source(name) is None])
        moved = [name for name, place in _storages(model).items() if before.get(name) != place]
        if moved:
            raise RuntimeError(f"vLLM moved {moved[0]} while it reloaded weights; CUDA graphs would go on with the old ones.")
        self.installed_weights = expected

    @torch.inference_mode()
    def check_weights(self, thorough: bool = False) -> None:
        """Compare what the model computes with and what was installed; see `LiveModel.check`."""
        expected: Expected = self.installed_weights
        different = []
        model = self.model_runner.get_model()
        for name, parameter in parameters(model).items():
            source, layer = expected.source(name), layer_of(model, name)
            assert source is not None
            if parameter.numel() and checksum(parameter) != expected.whole[source]:
                different.append(name)
            elif source in expected.width and is_packed(layer):
                width = expected.width[source]
                chosen = torch.arange(width) if thorough else columns(width)
                wanted = (expected.whole if thorough else expected.sampled)[source]
                if checksum(read_columns(layer, chosen, width, expected.dtype)) != wanted:
                    different.append(name)
        require_equal(different)

    def device_of_weights(self) -> str:
        """Where the model computes."""
        return str(self.model_runner.device)


class Expected:
    """Checksums of the tensors that are installed, added up by the parameter that they become part of.

    Attributes:
        whole: of all entries, in the dtype of the engine.
        sampled: of some columns of a matrix (`columns`); on a CPU alone.
        width: columns of a matrix.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model, self.device = model, device
        self.dtype = next(parameter.dtype for parameter in model.parameters() if parameter.numel())
        self.whole: dict[str, int] = {}
        self.sampled: dict[str, int] = {}
        self.width: dict[str, int] = {}

    def noting(self, tensors: Iterable[Named]) -> Iterator[Named]:
        """The tensors, on the device of the model."""
        for name, tensor in tensors:
            there = tensor.to(self.device, non_blocking=True)
            cast = there.to(self.dtype)
            target = fused_name(self.model, name)
            self.whole[target] = (self.whole.get(target, 0) + checksum(cast)) % MODULUS
            if cast.ndim == 2 and self.device.type == "cpu":
                self.width[target] = cast.shape[1]
                self.sampled[target] = (self.sampled.get(target, 0) + checksum(cast[:, columns(cast.shape[1])])) % MODULUS
            yield name, there

    def source(self, name: str) -> str | None:
        """The parameter whose values this one must have: itself, or the embedding for a tied head."""
        if name in self.whole:
            return name
        embeddings = [other for other in self.whole if other.endswith(EMBEDDING)]
        return embeddings[0] if name.endswith(HEAD) and embeddings else None


def parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    """All parameters by name, a tied head beside the embedding that it is."""
    return dict(model.named_parameters(remove_duplicate=False))


def layer_of(model: Any, name: str) -> Any:
    """The layer that a parameter belongs to."""
    return model.get_submodule(name.rpartition(".")[0])


def fused_name(model: Any, name: str) -> str:
    """The parameter of vLLM's model that a checkpoint's tensor becomes (part of)."""
    for fused, parts in model.packed_modules_mapping.items():
        for part in parts:
            if f".{part}." in name:
                return name.replace(f".{part}.", f".{fused}.")
    return name


def is_packed(layer: Any) -> bool:
    """Whether the layer multiplies with a packed copy of its weight."""
    return layer.weight.device.type == "cpu" and hasattr(layer, "cpu_linear")


def columns(width: int) -> torch.Tensor:
    """The columns of a matrix that are read back, spread evenly."""
    return torch.linspace(0, width - 1, min(COLUMNS, width)).long()


def read_columns(layer: Any, chosen: torch.Tensor, width: int, dtype: torch.dtype) -> torch.Tensor:
    """Columns of the matrix that a layer multiplies with: (rows, number chosen)."""
    units = torch.zeros(len(chosen), width, dtype=dtype)
    units[torch.arange(len(chosen)), chosen] = 1
    found: torch.Tensor = layer.cpu_linear(units, layer.weight, None)
    return found.T


def _storages(model: Any) -> dict[str, int]:
    return {name: parameter.data_ptr() for name, parameter in parameters(model).items() if parameter.numel()}


EXTENSION = f"{WeightInstaller.__module__}.{WeightInstaller.__qualname__}"
