"""The jobs of a campaign that Slurm knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mergebench.workflow.doctor.cluster import absent
from mergebench.workflow.doctor.commands import ask

PREFIX = "mergebench"  # the profile's slurm-jobname-prefix
COLUMNS = ("squeue", "--me", "--noheader", "--format=%i|%T|%M|%N|%r|%j|%Z|%k")
RUNNING = ("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING")


@dataclass(frozen=True)
class SlurmJob:
    """One line of ``squeue``: `elapsed` as Slurm writes it, `reason` why it waits, `name` the rule and wildcards of it."""

    number: str
    state: str
    elapsed: str
    nodes: str
    reason: str
    name: str

    @property
    def running(self) -> bool:
        """Whether it has nodes."""
        return self.state in RUNNING


def queued(results: Path) -> tuple[dict[str, SlurmJob], str]:
    """The jobs of this user for these results, by name, and why they are not known, if so ("" if Slurm is not there at all)."""
    answer = ask(COLUMNS, seconds=10)
    if not answer.good:
        return {}, "" if absent(answer) else f"Slurm does not answer: {answer.sentence}"
    return parse(answer.out, results), ""


def parse(text: str, results: Path) -> dict[str, SlurmJob]:
    """The answer of `COLUMNS`; jobs of other workflows and of other folders are left out."""
    found = {}
    for line in text.splitlines():
        number, state, elapsed, nodes, reason, run, folder, name = line.split("|", 7)
        if run.startswith(PREFIX) and (Path(folder) / results).resolve() == results.resolve():
            found[name] = SlurmJob(number, state, elapsed, nodes, reason, name)
    return found
