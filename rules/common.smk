"""The plan of the campaign, and what turns it into rules: closed wildcards, specs and resources."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir)))
from snakemake.logging import logger

from mergebench.workflow import lock, plan, progress

CONFIGURATION = lock.resolve(config, main=workflow.is_main_process)
PLAN = plan.Plan(CONFIGURATION)
RESULTS = PLAN.results
STATE = f"{RESULTS}/.state"

if workflow.is_main_process:
    lock.prepare(PLAN, sys.argv[1:])


onstart:
    progress.attach(logger)


wildcard_constraints:
    base=plan.alternatives(PLAN.bases),
    domain=plan.alternatives(PLAN.domains),
    method=plan.alternatives(PLAN.methods),
    kind=plan.alternatives(PLAN.statistics_kinds),
    dataset=plan.alternatives(PLAN.benchmark_datasets),
    training_set=plan.alternatives(PLAN.training_sets),


def spec(stage, **fixed):
    """The one parameter of a rule: all that decides its result, as JSON."""

    def inner(wildcards):
        return json.dumps(PLAN.spec(stage, **fixed, **dict(wildcards.items())), sort_keys=True)

    return inner


def need(stage, what):
    """A resource of a rule: by stage, size of the base model and attempt."""

    def inner(wildcards, attempt):
        return PLAN.resource(stage, what, base=wildcards.get("base"), attempt=attempt)

    return inner


def model(name):
    """Input function: manifest (compared by content) and weights (by existence) of a model."""

    def inner(wildcards):
        folder = PLAN.model(wildcards.base, name.format(**dict(wildcards.items())))
        return {
            "manifest": f"{folder}/manifest.json",
            "weights": ancient(f"{folder}/weights"),
        }

    return inner


def merge_inputs(wildcards):
    """Input function: all that the tuning and the merging of a method read: models, spectra and statistics."""
    names = ["base", *PLAN.specialists]
    folders = [PLAN.model(wildcards.base, name) for name in names]
    return {
        "manifests": [f"{folder}/manifest.json" for folder in folders],
        "base": ancient(f"{folders[0]}/weights"),
        "specialists": ancient([f"{folder}/weights" for folder in folders[1:]]),
        "spectra": PLAN.spectra(wildcards.base, wildcards.method),
        "statistics": PLAN.statistics(wildcards.base, wildcards.method),
    }
