"""The plan of the campaign, and what turns it into rules: closed wildcards, specs and resources."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir)))
from mergebench.workflow import source

source.enter(workflow.main_snakefile, main=workflow.is_main_process, arguments=sys.argv[1:])
from snakemake.logging import logger

from mergebench.analysis import outputs as analysed
from mergebench.report import outputs as reported
from mergebench.workflow import ends, lock, plan, progress, resources, slurm, storage, survey

CONFIGURATION = lock.resolve(config, main=workflow.is_main_process)
PLAN = plan.Plan(
    CONFIGURATION,
    lock.apart(CONFIGURATION, sys.argv[1:], main=workflow.is_main_process),
    searches_apart=lock.searches_apart(CONFIGURATION, sys.argv[1:], main=workflow.is_main_process),
)
RESULTS = PLAN.results
STATE = f"{RESULTS}/.state"
config["warnings"] = PLAN.warnings  # for the captions of the report, which see nothing else
RESOURCES = resources.Resources(PLAN, resources.Site.of(workflow.resource_settings.default_resources))
# The conda environment of rules that run a model; the preset decides, so that no fact about a site makes a result stale.
MODEL_ENVIRONMENT = f"../envs/{'cpu' if all(map(RESOURCES.estimates.tiny, PLAN.bases)) else 'gpu'}.yaml"
# A merge runs models only for a method that passes calibration rows through them.
MERGE_ENVIRONMENT = MODEL_ENVIRONMENT if PLAN.calibrated else "../envs/cpu.yaml"
STORAGE = storage.Storage(RESOURCES, workflow.resource_settings.resources.get("gpu"))

if workflow.is_main_process:
    lock.prepare(PLAN, sys.argv[1:])
    survey.attach(logger, workflow)
    slurm.harden()
else:
    slurm.ignore_warning_signal()


onstart:
    progress.attach(logger)
    slurm.stop_on_sigterm(workflow)
    for warning in PLAN.warnings:
        logger.warning(f"Warning: {warning}")
    storage.refuse_or_warn(STORAGE, survey.jobs(workflow.dag))


wildcard_constraints:
    base=plan.alternatives(PLAN.bases),
    domain=plan.alternatives(PLAN.domains),
    method=plan.alternatives(PLAN.merged),
    kind=plan.alternatives(PLAN.statistics_kinds),
    dataset=plan.alternatives(PLAN.benchmark_datasets),
    training_set=plan.alternatives(PLAN.training_sets),
    key=plan.alternatives(dict.fromkeys(key for key, _ in PLAN.tokenised)),


def spec(stage, **fixed):
    """The one parameter of a rule: all that decides its result, as JSON."""

    def inner(wildcards):
        return json.dumps(PLAN.spec(stage, **fixed, **dict(wildcards.items())), sort_keys=True)

    return inner


def globs(patterns):
    """Words of `--glob`: inputs by patterns below the results."""
    return " ".join(f"{name}='{pattern}'" for name, pattern in patterns.items())


def need(stage, what, **fixed):
    """A resource of a rule: what the job's estimate asks for, and more after a failed attempt."""

    def inner(wildcards, attempt, rulename):
        values = dict(wildcards.items())
        escalation = ends.escalation(rulename, values, attempt)
        return getattr(RESOURCES.of(stage, escalation, **fixed, **values), what)

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


def settled(name, path):
    """Input function: the answers or labels of all models and benchmarks that a job settles."""

    def inner(wildcards):
        chosen = PLAN.settled_by(name)
        models = chosen.covers(getattr(wildcards, "model", ""))
        return [path(wildcards.base, m, b) for m in models for b in chosen.benchmarks]

    return inner


def tokenizer(wildcards):
    """Input function: manifest and weights of the base whose tokenizer makes the tokens of a key."""
    folder = PLAN.model(PLAN.token_maker(wildcards.key), "base")
    return {
        "manifest": f"{folder}/manifest.json",
        "weights": ancient(f"{folder}/weights"),
    }


def merge_inputs(wildcards):
    """Input function: all that the tuning and the merging of a method, or of all methods, read: models, spectra, statistics, calibration rows."""
    methods = [PLAN.merged[wildcards.method].method] if hasattr(wildcards, "method") else PLAN.tuned
    names = ["base", *PLAN.specialists]
    folders = [PLAN.model(wildcards.base, name) for name in names]
    return {
        "manifests": [f"{folder}/manifest.json" for folder in folders],
        "base": ancient(f"{folders[0]}/weights"),
        "specialists": ancient([f"{folder}/weights" for folder in folders[1:]]),
        "spectra": list(dict.fromkeys(path for m in methods for path in PLAN.spectra(wildcards.base, m))),
        "statistics": list(dict.fromkeys(path for m in methods for path in PLAN.statistics(wildcards.base, m))),
        "calibration": list(dict.fromkeys(path for m in methods for path in PLAN.calibration(m))),
        "hits": list(dict.fromkeys(path for m in methods for path in PLAN.calibration_hits(m))),
    }


def admission(wildcards):
    """Input function: what must have been dropped before a base is merged; nothing where only some files are asked for."""
    return ancient(STORAGE.before(wildcards.base)) if set(workflow.dag_settings.targets) <= {"all"} else []
