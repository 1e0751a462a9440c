"""The files of every job of a campaign: what says that it is done, its log and its cost record.

The rules say the same in Snakemake's language; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mergebench.artifacts import sha256_json
from mergebench.workflow.plan import Plan

LOCAL = ("fetch_base", "fetch_judge", "prepare", "import", "drop", "analyse", "report", "official")
GROUPED = ("evaluate", "judge", "settle")  # stages whose rules are named by a group of benchmarks
LOGGED_WITH = {"train_specialist": "train", "train_multitask": "train", "import_specialist": "import"}
COUNTED_WITH = {**LOGGED_WITH, "train_grpo": "train", "fetch_training_data": "fetch_data"}


@dataclass(frozen=True)
class PlannedJob:
    """One job: its rule, the stage that it runs, and its files. `wildcards` are those of its spec, in the order of its paths."""

    rule: str
    stage: str
    wildcards: dict[str, str]
    outputs: tuple[str, ...]
    log: str
    cost: str
    local: bool  # whether it runs where the workflow runs

    @property
    def names(self) -> list[str]:
        """The wildcards of its rule; the group of an evaluation is in the rule's name."""
        return [value for key, value in self.wildcards.items() if key != "group"]

    @property
    def title(self) -> str:
        """Rule and wildcards in a line."""
        return " ".join([self.rule, *self.names])

    @property
    def slurm_name(self) -> str:
        """What the executor plugin calls its Slurm job, in the job's comment."""
        return f"rule_{self.rule}_wildcards_{'_'.join(self.names)}" if self.names else f"rule_{self.rule}"

    def state(self, plan: Plan) -> str:
        """The folder of its lease and of what it resumes from."""
        return f"{plan.results}/.state/{self.stage}-{sha256_json(plan.spec(self.stage, **self.wildcards))[:16]}"


def planned_jobs(plan: Plan) -> Iterator[PlannedJob]:
    """Every job of the campaign that runs a stage, in the order of the data's way."""
    for rule, stage, wildcards in plan.jobs():
        if stage != "admit":
            place = list(wildcards.values())
            log = "/".join([stage if stage in GROUPED else LOGGED_WITH.get(rule, rule), *place])
            cost = "/".join([stage if stage in GROUPED else COUNTED_WITH.get(rule, rule), *place])
            record = f"{plan.results}/costs/{cost}.json"
            outputs = (*_outputs(plan, stage, **wildcards), record)
            local = stage in LOCAL or plan.runs_here(stage, wildcards)
            yield PlannedJob(rule, stage, wildcards, outputs, f"{plan.results}/logs/{log}.log", record, local)


def _outputs(
    plan: Plan,
    stage: str,
    base: str = "",
    model: str = "base",
    domain: str = "",
    kind: str = "",
    method: str = "",
    group: str = "",
    dataset: str = "",
    training_set: str = "",
    judge: str = "",
    key: str = "",
) -> list[str]:
    """The outputs of a job, its cost record not counted."""
    results = plan.results
    if stage == "prepare":
        return [plan.data(dataset or training_set)]
    if stage == "decontaminate":
        return [f"{results}/decontamination/{training_set}/{name}" for name in ("manifest.json", "report.csv", "report.md", "hits.jsonl")]
    if stage == "tokenise":
        return [f"{results}/tokens/{key}/{training_set}/{name}" for name in ("manifest.json", "card.json", "shards")]
    if stage == "vectors":
        return [f"{results}/vectors/{base}/{domain}/{name}" for name in ("manifest.json", "spectrum.npz")]
    if stage == "interference":
        return plan.interference(base)
    if stage == "statistics":
        return [f"{results}/statistics/{base}/{domain}/{kind}/{name}" for name in ("manifest.json", "statistics.safetensors")]
    if stage == "tune":
        return plan.searched(base, method)
    if stage == "tune_base":
        return [*(path for m in plan.tuned for path in plan.searched(base, m)), *plan.search_costs(base)]
    if stage == "evaluate":
        return [plan.asked(base, model, benchmark)[0] for g in plan.groups if g.name == group for benchmark in g.benchmarks]
    if stage in ("judge", "settle"):
        chosen = plan.settled_by(group)
        path = plan.labels if stage == "judge" else plan.score
        return [path(base, m, benchmark) for m in chosen.covers(model) for benchmark in chosen.benchmarks]
    if stage == "fetch_judge":
        return [f"{plan.judge}/manifest.json", f"{plan.judge}/weights"]
    if stage == "official":
        return [path for b in plan.bases for m in (*plan.general_models, *plan.specialists) for path in plan.official(b, m)]
    if stage == "drop":
        return [plan.dropped(base, method)]
    if stage == "analyse":
        return plan.tables
    if stage == "report":
        return plan.report
    folder = plan.model(base, f"merged_{method}" if stage == "merge" else model)
    return [f"{folder}/manifest.json", f"{folder}/weights"]
