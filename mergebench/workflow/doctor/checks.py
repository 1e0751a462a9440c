"""The checks, in the order in which they are printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mergebench.workflow.doctor import hub, machine, slurm, software, storage
from mergebench.workflow.doctor.facts import Facts
from mergebench.workflow.doctor.finding import Finding

Check = Callable[[Facts], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    software.python,
    software.packages,
    software.plugin,
    slurm.reachable,
    slurm.settings,
    slurm.partitions,
    slurm.submission,
    software.same_on_nodes,
    storage.folder,
    storage.space,
    storage.shared,
    machine.limits,
    machine.sandbox,
    machine.offline,
    machine.gpu,
    machine.nccl,
    hub.token,
    hub.fetched,
)


def judge(facts: Facts) -> list[Finding]:
    """Every finding of every check."""
    return [finding for check in CHECKS for finding in check(facts)]
