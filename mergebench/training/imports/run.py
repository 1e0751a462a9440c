"""Import a specialist that was trained elsewhere, instead of training one.

Spec: ``base``, ``model``, ``domains`` (its one domain), ``source`` (hub | local), ``hub`` and ``revision`` or ``path``, and
``vocabulary`` (`merging.vocabulary`: what rows beyond the base's mean). Inputs: ``base`` (weights folder). Outputs: ``weights``,
as a trained specialist has them.

The files stay as they are, whatever their dtype; an adapter is folded into the base. A specialist without tokenizer files
gets those of the base.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mergebench.artifacts import Job
from mergebench.checkpoints.audit import Finding, require_mergeable
from mergebench.checkpoints.digest import weights_digest
from mergebench.checkpoints.fetch import TOKENIZERS, WANTED, copy
from mergebench.checkpoints.reader import ADAPTER, Checkpoint
from mergebench.errors import MergebenchError
from mergebench.hub.models import fetch_model, place
from mergebench.training.imports import adapter
from mergebench.training.imports.change import relative_change

ADAPTED = (ADAPTER, adapter.WEIGHTS)
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.*")


def run(job: Job) -> dict[str, Any]:
    """Bring the files, audit them, publish; returns the facts for the manifest.

    Raises:
        MergebenchError: the hub refuses, or the checkpoint is not a usable fine-tune of the base.
    """
    spec, weights = job.spec, job.staging("weights")
    base = Checkpoint(job.path("base"))
    revision, folder, name = _origin(job)
    with _called(folder, name):
        folded = adapter.fold(folder, base, weights) if adapter.is_adapter(folder) else None
        if folded is None:
            _refuse_pickled(folder)
            specialist = Checkpoint(folder)
            findings = _audit(base, specialist, name, spec["vocabulary"])
        else:
            specialist, findings = Checkpoint(weights), []
        with job.timing("algorithm"):
            changed = relative_change(base, specialist, name, job.progress)
    if folded is None:
        copy(folder, weights, place if spec["source"] == "hub" else shutil.copyfile)
        if not any((weights / file).is_file() for file in TOKENIZERS):
            copy(base.folder, weights, patterns=TOKENIZER_FILES)
            findings.append(Finding("tokenizer", False, f"{name} has no tokenizer; it gets that of the base."))
    return {
        "base": spec["base"],
        "model": spec["model"],
        "algorithm": "import",
        "domains": spec["domains"],
        "revision": revision,
        "imported": {"from": name, "adapter": folded, "findings": [finding.record() for finding in findings]},
        "weights_digest": weights_digest(weights),
        "dtype": ", ".join(sorted(specialist.dtypes)),
        "tensors": len(specialist.names),
        "parameters": sum(info.size for info in specialist.tensors.values()),
        "relative_norm": changed,
    }


def _origin(job: Job) -> tuple[str | None, Path, str]:
    """The commit (hub), the folder with the files, and what to call the specialist in messages."""
    spec = job.spec
    if spec["source"] == "hub":
        commit, folder = fetch_model(job, spec["hub"], spec.get("revision"), (*WANTED, *ADAPTED))
        return commit, folder, f"{spec['hub']} at {commit[:12]}"
    folder = Path(spec["path"])
    if not folder.is_dir():
        raise MergebenchError(f"{spec['base']}/{spec['domains'][0]}: there is no folder {folder}; correct training.specialists.")
    return None, folder, str(folder)


@contextmanager
def _called(folder: Path, name: str) -> Iterator[None]:
    """Call the specialist by its name, not by the folder that it was fetched into."""
    try:
        yield
    except MergebenchError as error:
        raise MergebenchError(str(error).replace(str(folder), name)) from error


def _refuse_pickled(folder: Path) -> None:
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickled and not any(folder.glob("*.safetensors")):
        raise MergebenchError(
            f"{folder} has its weights only as {pickled[0]}, a format that can run code when it is read: convert it to safetensors."
        )


def _audit(base: Checkpoint, specialist: Checkpoint, name: str, vocabulary: Any) -> list[Finding]:
    expected, found = (_architecture(model) for model in (base, specialist))
    if expected and found and expected != found:
        raise MergebenchError(f"{name} is a {found}, its base a {expected}; use a fine-tune of this base.")
    stored = sorted({info.dtype for info in specialist.tensors.values() if not info.floating})
    if stored and not any(not info.floating for info in base.tensors.values()):
        raise MergebenchError(f"{name} stores weights as {', '.join(stored)}, quantised; use the unquantised weights.")
    return require_mergeable(base, {name: specialist}, vocabulary=vocabulary)[name]


def _architecture(model: Checkpoint) -> str | None:
    return next(iter(model.config.get("architectures") or []), None) or model.config.get("model_type")
