"""The stage that brings a base model: the shipped tiny twin, a folder on disk, or a model of the hub."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mergebench.artifacts import Job
from mergebench.checkpoints.digest import weights_digest
from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.hub.models import fetch_model, place

# Weights, configuration and tokenizer, and nothing else: many hubs also hold the same weights in other formats.
WANTED = (
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.*",
)
TOKENIZERS = ("tokenizer.json", "tokenizer.model")


def run(job: Job) -> dict[str, Any]:
    """Write the base's folder as output `weights` and check every file of it.

    Spec:
        base; source ("tiny" | "local" | "hub"); path (local: the folder); hub (hub: the model's name);
        revision (hub: a commit, branch or tag; default: the newest one when the lock was made).

    Returns:
        The manifest's payload: source, revision, number of parameters (tied embeddings once), dtypes, digest of the
        weights, vocabulary size, and whether the embeddings are tied.
    """
    spec = job.spec
    weights = job.staging("weights")
    if spec["source"] == "hub":
        revision, folder = fetch_model(job, spec["hub"], spec.get("revision"), WANTED)
        copy(folder, weights, place)
    else:
        revision = None
        copy(source_folder(spec), weights)
    return {"base": spec["base"], "source": spec["source"], "revision": revision, **describe(weights)}


def source_folder(spec: dict[str, Any]) -> Path:
    """The folder on this machine that holds the base."""
    if spec["source"] == "tiny":
        from mergebench.tiny.shipped import shipped

        return shipped(spec["base"])
    if spec["source"] != "local":
        raise MergebenchError(f"Base {spec['base']}: the source is {spec['source']!r}; expected tiny, local or hub.")
    folder = Path(spec["path"])
    if not folder.is_dir():
        raise MergebenchError(f"Base {spec['base']}: there is no folder {folder}; correct its path in mergebench/catalogue/bases.yaml.")
    return folder


def copy(folder: Path, weights: Path, put: Callable[[Path, Path], object] = shutil.copyfile, patterns: Iterable[str] = WANTED) -> None:
    """Give `weights` the model's files: copies, since whatever later damages a result must not reach its source."""
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}):
        put(path.resolve(), weights / path.name)


def describe(weights: Path) -> dict[str, Any]:
    """Facts of a model folder, from its headers. Opening it checks every safetensors header against its file's size.

    Raises:
        MergebenchError: a weights file is truncated, or the configuration, a weights file or the tokenizer is absent.
    """
    checkpoint = Checkpoint(weights)
    if not any((weights / name).is_file() for name in TOKENIZERS):
        raise MergebenchError(f"{weights} has no tokenizer; expected {' or '.join(TOKENIZERS)} beside the weights.")
    rows = checkpoint.embedding_rows
    if rows is None:
        raise MergebenchError(f"{weights} has no input embedding (embed_tokens.weight); expected a decoder language model.")
    tokens = len(checkpoint.vocabulary or {}) or None
    if tokens is not None and tokens > rows:
        raise MergebenchError(
            f"{weights}: the tokenizer has {tokens} tokens, but the embedding only {rows} rows; they do not belong together."
        )
    return {
        "parameters": sum(info.size for info in checkpoint.tensors.values()),
        "dtypes": _counted(info.dtype for info in checkpoint.tensors.values()),
        "weights_digest": weights_digest(weights),
        "vocabulary": rows,
        "tokens": tokens,
        "tied_embeddings": checkpoint.tied,
        "architecture": (checkpoint.config.get("architectures") or [None])[0],
    }


def _counted(dtypes: Iterable[str]) -> dict[str, int]:
    """Number of tensors per dtype."""
    return dict(sorted(Counter(dtypes).items()))
