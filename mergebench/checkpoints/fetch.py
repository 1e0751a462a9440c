"""The stage that brings a base model: the shipped tiny twin, a folder on disk, or a model of the hub."""

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mergebench.artifacts import Job
from mergebench.checkpoints.digest import weights_digest
from mergebench.checkpoints.reader import Checkpoint
from mergebench.data.sources.refusals import explained
from mergebench.errors import MergebenchError

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
        revision (hub: a commit, branch or tag; default: the newest).

    Returns:
        The manifest's payload: source, revision, number of parameters (tied embeddings once), dtypes, digest of the
        weights, vocabulary size, and whether the embeddings are tied.
    """
    spec = job.spec
    weights = job.staging("weights")
    if spec["source"] == "hub":
        revision = download(spec["hub"], spec.get("revision"), weights)
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


def copy(folder: Path, weights: Path) -> None:
    """Give `weights` the model's files: copies, since whatever later damages a result must not reach its source."""
    for path in sorted({path for pattern in WANTED for path in folder.glob(pattern) if path.is_file()}):
        shutil.copyfile(path.resolve(), weights / path.name)


def download(name: str, revision: str | None, weights: Path) -> str:
    """Fetch the model's files from the hub into `weights`; returns the commit."""
    with explained("model", name):
        commit = model_commit(name, revision)
        snapshot(name, commit, weights)
    # The downloader's bookkeeping is no part of the model.
    shutil.rmtree(weights / ".cache", ignore_errors=True)
    return commit


def model_commit(name: str, revision: str | None) -> str:
    """Ask the hub which commit a revision (None: the default branch) of a model is."""
    from huggingface_hub import HfApi

    sha = HfApi().model_info(name, revision=revision).sha
    if sha is None:
        raise MergebenchError(f"The hub did not say at which commit {name} is; try again later.")
    return sha


def snapshot(name: str, commit: str, weights: Path) -> None:
    """Download the wanted files of a model at a commit."""
    from huggingface_hub import snapshot_download

    snapshot_download(name, revision=commit, local_dir=weights, allow_patterns=list(WANTED))


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
