"""A language model that runs stage by stage, with the weights of one stage in memory.

A stage is a set of parameters that an input meets together: the embedding (0), each layer (1 to L), and what follows the last layer, norm
and head (L + 1). Hidden states go from stage to stage, so that a model of any depth needs the memory of its largest layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mergebench.errors import MergebenchError
from mergebench.training.models import attention


def skeleton(folder: Path, dtype: torch.dtype) -> Any:
    """The causal language model that `config.json` describes, in evaluation mode: parameters on the meta device, buffers real.

    Args:
        folder: The weights folder; no weight is read.
        dtype: Of the parameters.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=attention(folder), dtype=dtype)
    for module in model.modules():
        buffers = dict(module.named_buffers(recurse=False))
        for name, buffer in buffers.items():
            module._buffers[name] = torch.empty_like(buffer, device="cpu")
        if buffers:
            model._init_weights(module)  # which computes buffers that no checkpoint holds: rotary frequencies, embedding scales
    return model.eval()


class StagedDecoder:
    """A causal decoder whose stages are run one at a time.

    Rows of a batch are padded on the right and nothing masks the padding: under causal attention no real token sees it.

    Args:
        folder: The weights folder of the model, or of one with the same architecture.
        dtype: In which it computes; float32 products are exact ones (no TensorFloat-32).
        device: Where it computes.

    Attributes:
        layers: Number of layers; the stages are 0 to layers + 1.
        width: Entries of a hidden state.

    Raises:
        MergebenchError: The model is not laid out like Llama (`model.embed_tokens`, `model.layers`, `model.norm`, `lm_head`).
    """

    def __init__(self, folder: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> None:
        torch.backends.cuda.matmul.allow_tf32 = False
        self.dtype, self.device = dtype, torch.device(device)
        model = skeleton(folder, dtype)
        decoder: Any = getattr(model, "model", None)
        if not all(hasattr(decoder, part) for part in ("embed_tokens", "layers", "norm")) or not hasattr(model, "lm_head"):
            raise MergebenchError(
                f"{type(model).__name__} ({folder}) does not keep embedding, layers, norm and head where Llama and Gemma 2 do; "
                "Gram matrices of its layers cannot be measured, so leave out regmean and regmean_plus_plus."
            )
        self.layers: int = len(decoder.layers)
        self.width: int = model.config.hidden_size
        self._owners = {
            f"{path}.{leaf}": (module, leaf) for path, module in model.named_modules() for leaf, _ in module.named_parameters(recurse=False)
        }
        self._layers, self._norm = list(decoder.layers), decoder.norm
        for module in (*self._layers, self._norm, decoder):
            _move_buffers(module, self.device)
        # What is left of the decoder prepares masks and positions as the model itself would, and passes hidden states through.
        self._gates = [_Gate() for _ in self._layers]
        decoder.layers, decoder.norm = torch.nn.ModuleList(self._gates), torch.nn.Identity()
        self._shell = decoder

    def stages(self, names: Sequence[str]) -> list[list[str]]:
        """These tensors of a checkpoint, stage by stage."""
        found: list[list[str]] = [[] for _ in range(self.layers + 2)]
        for name in names:
            if name.startswith("model.layers."):
                found[1 + int(name.split(".")[2])].append(name)
            else:
                found[0 if name.startswith("model.embed_tokens.") else -1].append(name)
        return found

    def linears(self, names: Sequence[str]) -> list[str]:
        """Those of these parameters that are weights of linear layers."""
        owners = {name: self._owners[name] for name in names if name in self._owners}
        return [name for name, (module, leaf) in owners.items() if isinstance(module, torch.nn.Linear) and leaf == "weight"]

    @contextmanager
    def holding(self, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Have these weights, by parameter name, in memory while the block is open.

        Tensors that are no parameter of the model (older checkpoints store rotary frequencies) are left aside, as by transformers.
        """
        meta = {}
        try:
            for name, value in weights.items():
                if name not in self._owners:
                    continue
                module, leaf = self._owners[name]
                meta[name] = module._parameters[leaf]
                own = value.detach().to(self.device, self.dtype, copy=True)  # never the mapped file itself
                module._parameters[leaf] = torch.nn.Parameter(own, requires_grad=False)
            yield
        finally:
            for name, parameter in meta.items():
                module, leaf = self._owners[name]
                module._parameters[leaf] = parameter

    @torch.no_grad()
    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """The hidden states before the first layer (rows, longest, width) of token ids, int64 (rows, longest); holds stage 0."""
        self._check(0, self._shell)
        output: torch.Tensor = self._shell(input_ids=ids.to(self.device), use_cache=False).last_hidden_state
        return output

    @torch.no_grad()
    def layer(self, stage: int, hidden: torch.Tensor) -> torch.Tensor:
        """The hidden states after a layer, from those before it; holds its stage, 1 to `layers`."""
        layer = self._layers[stage - 1]
        self._check(stage, layer)
        output = layer(hidden, **self._arguments(stage, hidden))
        return output[0] if isinstance(output, tuple) else output

    @torch.no_grad()
    def head_inputs(self, hidden: torch.Tensor) -> torch.Tensor:
        """What the head is given after the last layer; holds the norm."""
        self._check(self.layers + 1, self._norm)
        output: torch.Tensor = self._norm(hidden)
        return output

    @contextmanager
    def watching(self, names: Sequence[str], tell: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
        """While the block is open, `tell` is called with the name and the input of each of these linear layers' weights."""

        def hook(name: str) -> Callable[[Any, tuple[Any, ...]], None]:
            return lambda module, arguments: tell(name, arguments[0])

        hooks = [self._owners[name][0].register_forward_pre_hook(hook(name)) for name in names]
        try:
            yield
        finally:
            for each in hooks:
                each.remove()

    def sources(self, stage: int, names: Sequence[str]) -> dict[str, str]:
        """Of these linear layers of a layer: name -> name of the first one that is given the same tensor; holds the stage."""
        first: dict[int, str] = {}
        found: dict[str, str] = {}
        kept = []  # a tensor that is gone would lend its identity to another

        def tell(name: str, inputs: torch.Tensor) -> None:
            kept.append(inputs)
            found[name] = first.setdefault(id(inputs), name)

        with self.watching(names, tell):
            self.layer(stage, torch.zeros(1, 2, self.width, dtype=self.dtype, device=self.device))
        return found

    def _arguments(self, stage: int, hidden: torch.Tensor) -> dict[str, Any]:
        """What the model gives a layer beside the hidden states: its mask, positions and the like."""
        self._shell(inputs_embeds=hidden, use_cache=False)
        given = [gate.given for gate in self._gates]
        for gate in self._gates:
            gate.given = {}
        return given[stage - 1]

    def _check(self, stage: int, module: torch.nn.Module) -> None:
        for name, parameter in module.named_parameters():
            if parameter.device.type == "meta":
                raise MergebenchError(f"{name} of stage {stage} was given no weight; is the checkpoint complete?")


class _Gate(torch.nn.Module):
    """Stands for a layer: remembers what it was given and passes the hidden states on."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, Any] = {}

    def forward(self, hidden_states: torch.Tensor, **given: Any) -> torch.Tensor:
        self.given = given
        return hidden_states


def _move_buffers(module: torch.nn.Module, device: torch.device) -> None:
    for each in module.modules():
        for name, buffer in each.named_buffers(recurse=False):
            each._buffers[name] = buffer.to(device)
