"""Checks of the cluster: does it answer, will it keep what the executor plugin needs, can it grant every request?"""

from __future__ import annotations

from collections.abc import Iterator

from mergebench.workflow.doctor.cluster import NodeGroup, Request, absent, seconds
from mergebench.workflow.doctor.facts import Facts
from mergebench.workflow.doctor.finding import Finding, failed, ok, skipped, warning

PLUGIN_INIT_SECONDS = 40  # the plugin's own default where a profile does not set it
LEAST_JOB_AGE = 120


def reachable(facts: Facts) -> Iterator[Finding]:
    """Do the commands answer?"""
    slurm = facts.slurm
    if slurm is None:
        if absent(facts.slurm_answer):
            yield skipped("Slurm", facts.without_slurm)
        else:
            yield failed(
                "Slurm",
                f"its commands are here, but say: {facts.slurm_answer.sentence}",
                "run this on a login node; if it is one, wait until slurmctld is back (`scontrol ping`) or ask the administrators.",
            )
        return
    yield ok("Slurm", f"{slurm.version}, cluster {slurm.config.get('ClusterName', 'without a name')}")
    if slurm.queue.good:
        yield ok("squeue", f"answers; {len(slurm.queue.out.split())} jobs of yours")
    else:
        yield failed("squeue", slurm.queue.sentence, "the plugin asks it for the state of every job; ask the administrators.")
    if slurm.munge is not None:
        good = slurm.munge.good and "Success" in slurm.munge.out
        todo = "munged must run here, and clocks must agree within minutes; ask the administrators."
        yield ok("munge", "a credential is accepted") if good else failed("munge", slurm.munge.sentence, todo)


def settings(facts: Facts) -> Iterator[Finding]:
    """Does what the cluster is set to agree with the profile?"""
    slurm, profile = facts.slurm, facts.profile
    if slurm is None:
        yield skipped("Slurm's settings", facts.without_slurm)
        return
    command = profile.get("slurm-status-command", "sacct")
    interval = int(profile.get("slurm-init-seconds-before-status-checks", PLUGIN_INIT_SECONDS))
    needed = max(LEAST_JOB_AGE, 3 * interval)
    age = seconds(slurm.config.get("MinJobAge", ""))
    if command == "squeue" and age is not None and age < needed:
        yield failed(
            "MinJobAge",
            f"{age} s: ended jobs are forgotten before they are asked for, every {interval} s or more seldom",
            f"ask for MinJobAge={needed} or more in slurm.conf"
            + (", or set slurm-status-command: sacct in the profile." if slurm.accounting else "."),
        )
    elif age is not None:
        yield ok("MinJobAge", f"{age} s, the profile needs {needed} s")
    if slurm.accounting:
        yield ok("accounting", f"{slurm.config['AccountingStorageType']}; the profile polls with {command}")
    elif command != "squeue":
        yield failed("accounting", "there is no accounting database, and the profile polls with sacct", "set slurm-status-command: squeue.")
    else:
        yield ok("accounting", "none, and none is needed: the profile polls with squeue")
    if not slurm.accounting and any(r.account for r in facts.requests):
        yield failed(
            "account",
            "the profile sets slurm_account, but there is no accounting database to check it in, so every submission would fail",
            "remove slurm_account from the profile.",
        )
    if slurm.config.get("JobRequeue", "1") == "0" and not profile.get("slurm-requeue"):
        yield warning("requeue", "jobs are not requeued after a node failure or preemption", "set slurm-requeue: true in the profile.")
    else:
        yield ok("requeue", "jobs are requeued after a node failure or preemption")


def partitions(facts: Facts) -> Iterator[Finding]:
    """Do the partitions of the profile exist, and can each grant what the plan will ask of it?"""
    slurm = facts.slurm
    if slurm is None:
        yield skipped("partitions", facts.without_slurm)
        return
    for name in dict.fromkeys(r.partition for r in facts.requests):
        asked = [r for r in facts.requests if r.partition == name]
        groups = slurm.partition(name)
        if groups:
            problems = [problem for r in asked if (problem := refused(r, groups))]
            yield from problems or [ok(_title(name, groups), f"{_what(groups)}: enough for {', '.join(r.rule for r in asked)}")]
        elif name:
            names = ", ".join(dict.fromkeys(g.partition for g in slurm.groups)) or "none"
            yield failed(f"partition {name}", f"does not exist; there are: {names}", "set slurm_partition in the profile to one of them.")
        else:
            yield failed("partition", "the profile names none, and the cluster has no default", "set slurm_partition in the profile.")


def submission(facts: Facts) -> Iterator[Finding]:
    """Would ``sbatch`` accept the largest job of every rule, with this account?"""
    if facts.slurm is None:
        yield skipped("sbatch --test-only", facts.without_slurm)
        return
    refusals: dict[str, list[str]] = {}
    for rule, answer in facts.slurm.trials.items():
        if not answer.good:
            refusals.setdefault(answer.sentence, []).append(rule)
    for sentence, rules in refusals.items():
        todo = "correct slurm_account in the profile (`sacctmgr show associations user=$USER`)."
        if "account" not in sentence.lower():
            todo = "give these rules another partition, or smaller requests, under set-resources in the profile."
        yield failed("sbatch --test-only", f"{', '.join(rules)}: {sentence}", todo)
    if not refusals:
        yield ok("sbatch --test-only", f"the largest job of each of {len(facts.slurm.trials)} rules would be accepted")


def refused(request: Request, groups: list[NodeGroup]) -> Finding | None:
    """Why no node of a partition can run a job, if so; the first of: state, time, GPUs, GPU model, memory, CPUs."""
    name = groups[0].partition
    check = f"partition {name}"
    if not any(g.usable for g in groups):
        states = ", ".join(sorted({g.state if g.up else "partition down" for g in groups}))
        return failed(check, f"no node is usable ({states})", "choose another partition, or wait until its nodes are back.")
    usable = [g for g in groups if g.usable]
    limits = [g.minutes for g in usable]
    longest = None if None in limits else max(m for m in limits if m is not None)
    if longest is not None and request.runtime > longest:
        return failed(
            check,
            f"{request.rule} asks for {request.runtime} min, jobs may run {longest} min",
            f"set max_runtime: {longest} under default-resources in the profile, if the rule resumes, or choose another partition.",
        )
    models = sorted({model for g in usable for model in g.gpus})
    if request.gpu and models and request.gpu_model and request.gpu_model not in models:
        have = ", ".join(filter(None, models)) or "GPUs without a type"
        found = f"{request.rule} asks for gpu_model {request.gpu_model}, the nodes have {have}"
        return failed(check, found, "correct gpu_model in the profile, or leave it out.")
    most = max(_offered(request, g) for g in usable)
    if request.per_node > most:
        return failed(
            check,
            f"{request.rule} asks for {request.per_node} GPUs on a node, nodes have at most {most}",
            f"choose a partition with more GPUs, or set gpus_per_node: {most} under default-resources in the profile."
            if most
            else "choose a partition with GPUs for this rule under set-resources in the profile.",
        )
    fitting = [g for g in usable if _offered(request, g) >= request.per_node]
    memory = max(g.memory_mb for g in fitting)
    if request.mem_mb > memory:
        return failed(
            check,
            f"{request.rule} asks for {request.mem_mb} MB, nodes have at most {memory} MB",
            f"choose a partition with larger nodes, or set mem_mb for {request.rule} under set-resources in the profile.",
        )
    cpus, wanted = max(g.cpus for g in fitting), -(-request.tasks // request.nodes) * request.threads
    if wanted > cpus:
        return failed(
            check,
            f"{request.rule} asks for {wanted} CPUs on a node, nodes have at most {cpus}",
            f"set threads for {request.rule} under set-threads in the profile.",
        )
    if sum(g.nodes for g in fitting) < request.nodes:
        found = f"{request.rule} asks for {request.nodes} nodes, {sum(g.nodes for g in fitting)} can run it"
        return failed(check, found, "choose a larger partition.")
    return None


def _offered(request: Request, group: NodeGroup) -> int:
    """GPUs on one node that the request may take."""
    return group.gpus.get(request.gpu_model, 0) if request.gpu_model else sum(group.gpus.values())


def _title(name: str, groups: list[NodeGroup]) -> str:
    return f"partition {name or groups[0].partition + ' (default)'}"


def _what(groups: list[NodeGroup]) -> str:
    limit = groups[0].minutes
    gpus = sorted({f"{count} {model or 'GPUs'}" for g in groups for model, count in g.gpus.items()})
    parts = [f"{sum(g.nodes for g in groups)} nodes", f"{min(g.memory_mb for g in groups)} MB or more"]
    parts += [f"{', '.join(gpus)} per node"] if gpus else ["no GPUs"]
    return ", ".join([*parts, "no time limit" if limit is None else f"{limit} min"])
