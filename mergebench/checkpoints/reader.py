"""A checkpoint: a Hugging Face folder with one or several safetensors files, read one tensor at a time."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergebench.checkpoints.tensorfile import TensorFile, TensorInfo
from mergebench.errors import MergebenchError

if TYPE_CHECKING:
    import numpy as np
    import torch

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
EMBEDDING = "embed_tokens.weight"
HEAD = "lm_head.weight"


class Checkpoint:
    """A model folder. Opening it reads and checks headers only; `tensor` maps one tensor at a time.

    A tied head that is stored beside the embedding is left out of `tensors`: loading the model ignores it, so a
    threshold or an average that counted it would count the embedding twice.

    Args:
        folder: The folder with `config.json` and `model.safetensors`, or shards and their index.

    Attributes:
        folder: The folder.
        config: `config.json`.
        tensors: Tensor name -> `TensorInfo`, sorted by name.

    Raises:
        MergebenchError: A file is missing, truncated, or inconsistent with the others.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise MergebenchError(f"There is no checkpoint at {self.folder}: expected a folder with config.json and weights.")
        _refuse_adapter(self.folder)
        self.config: dict[str, Any] = _read_json(self.folder / "config.json")
        self._files: dict[str, TensorFile] = {}
        for path in weight_files(self.folder):
            file = TensorFile(path)
            for name in file.tensors:
                if name in self._files:
                    raise MergebenchError(f"{self.folder} stores tensor {name!r} in two shards; remove the stale one.")
                self._files[name] = file
        _check_index(self.folder, self._files)
        stored = {name: self._files[name].tensors[name] for name in sorted(self._files)}
        self.tensors: dict[str, TensorInfo] = {
            name: info for name, info in stored.items() if not (self._tied_by(stored) and _is(name, HEAD))
        }

    def _tied_by(self, stored: dict[str, TensorInfo]) -> bool:
        # transformers omits the flag from config.json where it equals the architecture's default,
        # so without the flag the stored head decides.
        heads = any(_is(name, HEAD) for name in stored)
        embeddings = any(_is(name, EMBEDDING) for name in stored)
        return embeddings and bool(self.config.get("tie_word_embeddings", not heads))

    @property
    def names(self) -> list[str]:
        """Tensor names, sorted."""
        return list(self.tensors)

    @property
    def tied(self) -> bool:
        """Whether the output head is the input embedding."""
        return self._tied_by(self.tensors)

    @property
    def dtypes(self) -> set[str]:
        """The format's names of the dtypes of the floating tensors, such as {"BF16"}."""
        return {info.dtype for info in self.tensors.values() if info.floating}

    @property
    def embedding_rows(self) -> int | None:
        """Rows of the input embedding; None for a model without one."""
        rows = [info.shape[0] for name, info in self.tensors.items() if _is(name, EMBEDDING) and info.shape]
        return rows[0] if rows else None

    @cached_property
    def vocabulary(self) -> dict[str, int] | None:
        """Token -> id from `tokenizer.json`, added tokens included; None where there is no such file."""
        path = self.folder / "tokenizer.json"
        if not path.exists():
            return None
        tokenizer = _read_json(path)
        try:
            entries = tokenizer["model"]["vocab"]
            if not isinstance(entries, dict):  # Unigram: a list of (piece, log probability), the id being the position
                entries = {piece: position for position, (piece, _) in enumerate(entries)}
            added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []}
        except (KeyError, TypeError, ValueError) as error:
            raise MergebenchError(f"{path} has no vocabulary in the place where tokenizers keep it.") from error
        vocabulary = {**entries, **added}
        for token, place in vocabulary.items():
            if not isinstance(token, str) or type(place) is not int:
                raise MergebenchError(f"{path} gives the token {token!r} the id {place!r}; expected an integer. Fetch the tokenizer again.")
        return vocabulary

    def size(self, name: str) -> int:
        """Entries of the tensor `name`."""
        return self.tensors[name].size

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor `name` in its stored dtype, a view of the mapped file: never write into it."""
        if name not in self.tensors:
            raise MergebenchError(f"{self.folder} has no tensor {name!r}.")
        return self._files[name].tensor(name)

    def values(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Entries of the flattened tensor `name` as stored, a view of the mapped file: see `TensorFile.values`."""
        if name not in self.tensors:
            raise MergebenchError(f"{self.folder} has no tensor {name!r}.")
        return self._files[name].values(name, start, stop)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model in `folder`, by the rules that transformers follows.

    Raises:
        MergebenchError: There are none, or the index names a file outside the folder or one that is missing.
    """
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if not (folder / INDEX).exists():
        raise MergebenchError(f"{folder} has neither {SINGLE} nor {INDEX}: only safetensors checkpoints are supported.")
    shards = sorted(set(_weight_map(folder).values()))
    for shard in shards:
        if Path(shard).name != shard:
            raise MergebenchError(f"{folder / INDEX} names {shard!r}; a shard must lie in the same folder.")
        if not (folder / shard).exists():
            raise MergebenchError(f"{folder} lacks {shard}, which {INDEX} lists; make or fetch the checkpoint again.")
    return [folder / shard for shard in shards]


def is_embedding(name: str) -> bool:
    """Whether `name` is an input embedding or an output head."""
    return _is(name, EMBEDDING) or _is(name, HEAD)


def _refuse_adapter(folder: Path) -> None:
    if not (folder / ADAPTER).exists() or (folder / "config.json").exists():
        return
    facts = _read_json(folder / ADAPTER)
    kind, base = facts.get("peft_type", "of an unknown kind"), facts.get("base_model_name_or_path", "an unnamed base")
    raise MergebenchError(f"{folder} is an adapter ({kind}) of {base}, not a model: fold it into its base first (peft's merge_and_unload).")


def _check_index(folder: Path, files: dict[str, TensorFile]) -> None:
    if (folder / SINGLE).exists():
        return
    for name, shard in _weight_map(folder).items():
        if name not in files or files[name].path.name != shard:
            raise MergebenchError(f"{folder / INDEX} places tensor {name!r} in {shard}, which does not hold it.")


def _weight_map(folder: Path) -> dict[str, str]:
    mapping = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(mapping, dict) or not mapping or not all(isinstance(shard, str) for shard in mapping.values()):
        raise MergebenchError(f"{folder / INDEX} has no weight_map from tensor names to files.")
    return mapping


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MergebenchError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise MergebenchError(f"{path} is not valid JSON; make or fetch the checkpoint again.") from error
    if not isinstance(content, dict):
        raise MergebenchError(f"{path} holds {type(content).__name__} where a map was expected.")
    return content


def _is(name: str, suffix: str) -> bool:
    return name == suffix or name.endswith("." + suffix)
