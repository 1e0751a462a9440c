"""The `interference` stage: how the task vectors of one base relate to each other, tensor by tensor.

Its file has sums and counts, never ratios, so that whoever reads it can add up a layer, a kind of module or the whole model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mergebench.artifacts import Job
from mergebench.checkpoints.audit import require_mergeable
from mergebench.checkpoints.digest import recorded_weights_digest
from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.vectors.measure import measure
from mergebench.vectors.modules import layer_of, module_of
from mergebench.vectors.relations import Relations, relate
from mergebench.vectors.spectrum import Cut, Spectrum

# The share of each task vector, over the whole model, that counts as its largest entries: the density that TIES is published with.
TOP = 0.2

COLUMNS = {
    "tensor": "object",
    "layer": "Int64",
    "module": "object",
    "first": "object",
    "second": "object",
    "entries": "int64",
    "base_squares": "float64",
    "product": "float64",
    "agreements": "int64",
    "conflicts": "int64",
    "large_agreements": "int64",
    "large_conflicts": "int64",
    "elected": "int64",
    "shared": "int64",
    "contested": "int64",
    "large_shared": "int64",
    "large_contested": "int64",
}


def run(job: Job) -> dict[str, Any]:
    """Write `COLUMNS` as Parquet: a row per tensor and pair of domains, and one for each domain with itself.

    The last four columns, `entries` and `base_squares` are the tensor's and stand in each of its rows; `elected` is 0 but for a domain with
    itself. What the other columns are says `Relations`.

    Spec: base, domains; optionally vocabulary (see `checkpoints.audit`). Inputs: base, specialists (weights folders, in the order of the
    domains); spectra (manifests of the vectors stage, each in a folder named by its domain; those that are not given are measured).
    Outputs: interference.

    Returns:
        The models' digests, the density of the largest entries, each domain's threshold and how many entries reach it.

    Raises:
        MergebenchError: The models cannot be merged, a spectrum was measured on others, or a weight is not finite.
    """
    domains, folders = job.spec["domains"], job.paths("specialists")
    if len(domains) != len(folders):
        raise MergebenchError(f"The stage has {len(domains)} domains but {len(folders)} specialists; give one for each.")
    base = Checkpoint(job.path("base"))
    specialists = {domain: Checkpoint(folder) for domain, folder in sorted(zip(domains, folders, strict=True))}
    named = {f"specialist_{domain}": model for domain, model in specialists.items()}
    require_mergeable(base, named, vocabulary=job.spec.get("vocabulary", "refuse"))
    names = [name for name, info in base.tensors.items() if info.floating]
    digests = {"base": recorded_weights_digest(base.folder), **{d: recorded_weights_digest(m.folder) for d, m in specialists.items()}}
    with job.timing("algorithm"):
        cuts = _thresholds(job, base, specialists, names, digests)
        limits = np.array([cut.limit for cut in cuts.values()], np.uint32)
        rows: list[dict[str, Any]] = []
        for done, (name, found) in enumerate(relate(base, list(specialists.values()), names, limits, threads=job.threads), start=1):
            rows += _rows(name, found, list(specialists))
            job.progress(done, len(names), "tensors")
    _write(job, rows)
    return {
        "digests": digests,
        "parameters": sum(base.tensors[name].size for name in names),
        "density": TOP,
        "thresholds": {domain: cut.value if cut.kept else None for domain, cut in cuts.items()},
        "largest": {domain: cut.kept for domain, cut in cuts.items()},
    }


def _thresholds(
    job: Job, base: Checkpoint, specialists: Mapping[str, Checkpoint], names: list[str], digests: Mapping[str, str]
) -> dict[str, Cut]:
    """The magnitude that the largest entries of each task vector reach; all that equal the smallest of them count."""
    spectra = {manifest.parent.name: Spectrum.load(manifest.with_name("spectrum.npz")) for manifest in job.paths("spectra")}
    for domain, specialist in specialists.items():
        if domain in spectra:
            spectra[domain].require_origin(domain, digests["base"], digests[domain], specialist.folder)
    absent = [domain for domain in specialists if domain not in spectra]
    if absent:
        models = [specialists[domain] for domain in absent]
        measured = measure(base, models, names, densities=[[TOP]] * len(models), threads=job.threads)
        spectra |= dict(zip(absent, measured, strict=True))
    return {domain: spectra[domain].cut(round(TOP * spectra[domain].total)) for domain in specialists}


def _rows(name: str, found: Relations, domains: list[str]) -> Iterator[dict[str, Any]]:
    whole = {
        "tensor": name,
        "layer": layer_of(name),
        "module": module_of(name),
        "entries": found.entries,
        "base_squares": found.base_squares,
        **dict(zip(("shared", "contested", "large_shared", "large_contested"), found.contests.tolist(), strict=True)),
    }
    for a, first in enumerate(domains):
        for b, second in enumerate(domains[a:], start=a):
            yield {
                **whole,
                "first": first,
                "second": second,
                "product": found.products[a, b],
                "agreements": found.agreements[a, b],
                "conflicts": found.conflicts[a, b],
                "large_agreements": found.large_agreements[a, b],
                "large_conflicts": found.large_conflicts[a, b],
                "elected": found.elected[a] if a == b else 0,
            }


def _write(job: Job, rows: list[dict[str, Any]]) -> None:
    import pandas

    frame = pandas.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    frame.to_parquet(job.staging("interference"), index=False, compression="zstd")
