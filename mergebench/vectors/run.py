"""The `vectors` stage: audit one specialist against its base and measure its task vector."""

from __future__ import annotations

from typing import Any

import numpy as np

from mergebench.artifacts import Job
from mergebench.checkpoints.audit import require_mergeable
from mergebench.checkpoints.digest import recorded_weights_digest
from mergebench.checkpoints.reader import Checkpoint
from mergebench.kernels.blocks import moved
from mergebench.vectors.measure import measure
from mergebench.vectors.pieces import base_loader
from mergebench.vectors.spectrum import DENSITIES
from mergebench.vectors.walk import BLOCK, Chunk, chunks, ordered


def run(job: Job) -> dict[str, Any]:
    """Write the spectrum of specialist - base; return its norms, the audit's findings and the models' digests.

    Spec: base, domain; optionally vocabulary ("refuse" or "base", see `checkpoints.audit`).
    Inputs: base, specialist (weights folders). Outputs: spectrum (npz).

    Raises:
        MergebenchError: The two models cannot be merged, or a weight is not finite.
    """
    domain = job.spec["domain"]
    base, specialist = Checkpoint(job.path("base")), Checkpoint(job.path("specialist"))
    vocabulary = job.spec.get("vocabulary", "refuse")
    findings = require_mergeable(base, {f"specialist_{domain}": specialist}, vocabulary=vocabulary)
    names = [name for name, info in base.tensors.items() if info.floating]
    digests = {"base": recorded_weights_digest(base.folder), "specialist": recorded_weights_digest(specialist.folder)}
    with job.timing("algorithm"):
        (spectrum,) = measure(base, [specialist], names, densities=[DENSITIES], origins=[digests], threads=job.threads)
        base_norms = _norms(base, names, job.threads)
    spectrum.save(job.staging("spectrum"))
    job.progress(len(names), len(names), "tensors")
    norms = spectrum.tensor_norms()
    base_norm = float(np.linalg.norm(list(base_norms.values())))
    return {
        "digests": digests,
        "audit": [finding.record() for finding in findings[f"specialist_{domain}"]],
        "parameters": spectrum.total,
        "norm": spectrum.norm,
        "relative_norm": spectrum.norm / base_norm if base_norm else None,
        "zero_fraction": spectrum.zero_fraction,
        "largest": float(spectrum.maxima.max(initial=0.0)),
        "tensors": {
            name: {"norm": norms[name], "relative_norm": norms[name] / base_norms[name] if base_norms[name] else None} for name in names
        },
    }


def _norms(model: Checkpoint, names: list[str], threads: int) -> dict[str, float]:
    """The Euclidean norm of each tensor."""

    def squares(chunk: Chunk) -> tuple[str, float]:
        total, load = 0.0, base_loader(model, *chunk)
        for place in range(0, chunk.stop - chunk.start, BLOCK):
            block = np.empty(min(BLOCK, chunk.stop - chunk.start - place), np.float32)
            load(place, block)
            total += moved(block)[1]
        return chunk.name, total

    found = dict.fromkeys(names, 0.0)
    for name, part in ordered(chunks(model, names), squares, threads):
        found[name] += part
    return {name: total**0.5 for name, total in found.items()}
