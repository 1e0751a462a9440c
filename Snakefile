"""MergeBench: base models -> specialists -> task vectors -> merged models -> scores -> tables."""

from snakemake.utils import min_version

min_version("9.20")


configfile: "config.yaml"


report: "rules/captions/workflow.rst"


# Only with `--sdm apptainer`: docs/installation.md says how to build it.
container: "envs/mergebench.sif"


include: "rules/common.smk"
include: "rules/fetch.smk"
include: "rules/train.smk"
include: "rules/vectors.smk"
include: "rules/statistics.smk"
include: "rules/tune.smk"
include: "rules/merge.smk"
include: "rules/evaluate.smk"
include: "rules/storage.smk"
include: "rules/analyse.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        PLAN.targets,
    localrule: True
