"""The `merge` stage: carry out one recipe, with the parameters that tuning chose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mergebench.artifacts import Job
from mergebench.checkpoints.digest import recorded_weights_digest, weights_digest
from mergebench.errors import MergebenchError
from mergebench.merging.engine import merge
from mergebench.merging.models import Models
from mergebench.merging.registry import get
from mergebench.merging.scope import ALL


def run(job: Job) -> dict[str, Any]:
    """Write the merged checkpoint; return the recipe, the inputs' digests, and what the merge turned out to be.

    Spec: base, method, domains; parameters (fixed ones, or null), scope, seed, dtype, vocabulary where they differ from
    the defaults; calibration for a method that reads rows. Inputs: base, specialists (weights folders in the order of the
    domains); spectra, statistics and calibration (lists of manifests, whatever their order), best (`best.yaml`). Outputs: weights.

    Raises:
        MergebenchError: The inputs do not belong together, or the recipe is wrong.
    """
    spec = job.spec
    with job.timing("load"):
        models = open_models(job)
        digests = input_digests(models)
    folder = job.staging("weights")
    with job.timing("algorithm"):
        outcome = merge(
            models,
            spec["method"],
            recipe_parameters(job),
            folder=folder,
            scope=spec.get("scope", ALL),
            seed=spec.get("seed", 0),
            dtype=spec.get("dtype") or "base",
            threads=job.threads,
            state=job.state / "weights",
            progress=lambda done, total: job.progress(done, total, "tensors"),
        )
    return {
        **outcome,
        "input_digests": digests,
        "audit": {domain: [note.record() for note in notes] for domain, notes in models.findings.items()},
        "weights_digest": weights_digest(folder),
        **({} if models.propagation is None else {"calibration": models.propagation.facts()}),
    }


def open_models(job: Job) -> Models:
    """The models of a job: its inputs base, specialists, spectra and statistics, its spec's domains and vocabulary.

    A method that passes calibration rows through what it merges gets those of the input `calibration`, where the spec has that entry.

    Spectra are found by the name of their folder (`vectors/<base>/<domain>/`), and statistics, all those beside the manifests, by
    what they say of themselves: no list can be paired with another in the wrong order.
    """
    domains, folders = job.spec["domains"], job.paths("specialists")
    if len(domains) != len(folders):
        raise MergebenchError(f"The merge has {len(domains)} domains but {len(folders)} specialists; give one for each.")
    models = Models.open(
        job.path("base"),
        dict(zip(domains, folders, strict=True)),
        spectra={manifest.parent.name: manifest.parent / "spectrum.npz" for manifest in job.paths("spectra")},
        statistics=[file for manifest in job.paths("statistics") for file in sorted(manifest.parent.glob("*.safetensors"))],
        vocabulary=job.spec.get("vocabulary", "refuse"),
    )
    methods = job.spec.get("methods") or [job.spec["method"]]
    propagations = [get(name).propagation for name in methods]
    for propagation in filter(None, propagations if "calibration" in job.spec else ()):
        models.propagation = propagation(job, models)
    return models


def input_digests(models: Models) -> dict[str, str]:
    """The weights digest of the base and of every specialist, by domain.

    Raises:
        MergebenchError: A spectrum was measured on other weights.
    """
    digests = {"base": recorded_weights_digest(models.base.folder)}
    for domain, specialist in models.specialists.items():
        digests[domain] = recorded_weights_digest(specialist.folder)
        if domain in models.spectra:
            models.spectra[domain].require_origin(domain, digests["base"], digests[domain], specialist.folder)
    return digests


def recipe_parameters(job: Job) -> dict[str, Any]:
    """The parameters of the merge: the spec's, and over them what tuning chose."""
    fixed = dict(job.spec.get("parameters") or {})
    for path in job.paths("best"):
        fixed.update(chosen_parameters(path))
    return fixed


def chosen_parameters(path: Path) -> dict[str, Any]:
    """The parameters in a `best.yaml`."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return dict(content["parameters"] or {})
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise MergebenchError(f"{path} does not hold the parameters that tuning chose ({error}); tune again.") from error
