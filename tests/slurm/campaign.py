"""A campaign on the cluster: the repository's own Slurm profile, and a small preset for the faults."""

import contextlib
import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import psutil

from mergebench.artifacts import remove
from tests.dag.campaign import Campaign
from tests.slurm.cluster import scontrol

# Added to the copy's config.yaml: one base, two domains, three methods, three benchmarks.
FAULTS = """
  faults:
    bases: [tiny-llama-strong]
    domains: [coding, safety]
    seed: 0
    data: {source: tiny, rows: 64, calibration_rows: 4, limit: 24}
    training:
      supervised: {tiny: {<<: *tiny_sft, steps: 20, batch_size: 4, micro_batch_size: 2, checkpoint_seconds: 0.5}}
    merging:
      scope: all
      methods:
        model_soup: {}
        task_arithmetic: {grid: {scale: [0.35, 0.7]}}
        ties: {grid: {density: [0.2], scale: [0.5, 1.0]}}
    evaluation:
      <<: *tiny_evaluation
      in_domain: [wildguardtest, mbppplus]
      forgetting: [triviaqa]
      surrogates: [wildjailbreak, conala]
      max_tokens: 16
"""
BASE = "tiny-llama-strong"
# What a test changes of the profile: jobs are asked about every three seconds, and no more run at once than two cores can bear.
QUICK = ("--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "20", "--jobs", "4")
COST_TABLES = ("costs.csv", "efficiency.csv", "guideline.csv", "pareto.csv")
COST_CLAIMS = ("C15", "C16", "C19")  # about run time and memory
COST_COLUMNS = ("algorithm_seconds", "validation_seconds", "total_seconds", "peak_memory_mib")


@dataclass(frozen=True)
class SlurmJob:
    """A job as slurmctld describes it (``scontrol show job``)."""

    facts: dict[str, str]

    @property
    def number(self) -> str:
        return self.facts["JobId"]

    @property
    def state(self) -> str:
        return self.facts["JobState"]

    @property
    def node(self) -> str:
        return self.facts["NodeList"]

    @property
    def restarts(self) -> int:
        return int(self.facts["Restarts"])

    @property
    def rule(self) -> str:
        return self.what.removeprefix("rule_").partition("_wildcards_")[0]

    @property
    def what(self) -> str:
        """The rule and its wildcards, as the executor plugin writes them into the comment."""
        return self.facts["Comment"]

    @property
    def memory_mb(self) -> int:
        """The memory asked for on each node."""
        number, unit = re.fullmatch(r"([0-9.]+)([MG])", self.facts["MinMemoryNode"]).groups()
        return int(float(number) * (1024 if unit == "G" else 1))

    @property
    def minutes(self) -> int:
        """The time limit."""
        days, _, clock = self.facts["TimeLimit"].rpartition("-")
        hours, minutes, _ = clock.split(":")
        return (int(days or 0) * 24 + int(hours)) * 60 + int(minutes)

    @property
    def log(self) -> str:
        """What the job's Slurm log says."""
        return Path(self.facts["StdOut"]).read_text(errors="replace")


class Workflow:
    """A running ``snakemake``; what it prints goes to a file that can be read meanwhile."""

    _started: ClassVar[list["Workflow"]] = []

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self._started.append(self)

    @classmethod
    def end_all(cls) -> None:
        """Kill the workflows that a failed test has left running."""
        for workflow in cls._started:
            if workflow.process.poll() is None:
                os.killpg(workflow.process.pid, signal.SIGKILL)
                workflow.process.wait()
        cls._started.clear()

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, what: str, ready: Callable[[], Any], seconds: float = 300, pause: float = 0.2) -> Any:
        """Wait until `ready` returns something true, and return that; the workflow must not end before."""
        deadline = time.monotonic() + seconds
        while not (found := ready()):
            assert self.process.poll() is None, f"the workflow ended before this: {what}\n{self.output[-4000:]}"
            assert time.monotonic() < deadline, f"after {seconds:.0f} s not yet: {what}\n{self.output[-4000:]}"
            time.sleep(pause)
        return found

    def finish(self, seconds: float = 600) -> str:
        """Wait for a successful end; returns what was printed."""
        assert self.wait(seconds) == 0, self.output[-6000:]
        return self.output

    def wait(self, seconds: float = 600) -> int:
        """Wait for the end; returns the exit status."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the workflow hangs; its last words: {self.output[-4000:]}") from None


class ClusterCampaign(Campaign):
    """A copy of the workflow whose jobs go to Slurm with ``profiles/slurm``."""

    @classmethod
    def with_faults_preset(cls, folder: Path) -> "ClusterCampaign":
        """A fresh copy whose configuration has the preset `faults` as well."""
        Campaign.create(folder)
        with (folder / "config.yaml").open("a") as stream:
            stream.write(FAULTS)
        return cls(folder, "faults")

    def fork(self, folder: Path) -> "ClusterCampaign":
        super().fork(folder)
        return ClusterCampaign(folder, self.preset)

    def submit(self, *options: str) -> Workflow:
        """Start the workflow on the cluster."""
        command = [sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", "--config", f"preset={self.preset}", *QUICK]
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        log = self.folder / f"workflow-{len(list(self.folder.glob('workflow-*.log')))}.log"
        with log.open("wb") as stream:
            # A shell that starts the tests in the background has them ignore Ctrl-C; a workflow of a user does not.
            heard = ["env", "--default-signal=INT"]
            process = subprocess.Popen(
                [*heard, *command, *options], cwd=self.folder, env=environment, stdout=stream, stderr=stream, start_new_session=True
            )
        return Workflow(process, log)

    def forget(self, *paths: str) -> None:
        """Delete results and everything that jobs could restore or resume them from."""
        for path in paths:
            remove(self.results / path)
        for state in [
            *self.results.glob(".state/*-*"),
            *(self.results / ".state" / kind for kind in ("asked", "settled", "verdicts", "labels")),
        ]:
            remove(state)

    def forget_scores(self, *models: str) -> None:
        """Delete all answers and scores of some models."""
        self.forget(*(f"{kind}/{BASE}/{model}" for kind in ("answers", "scores") for model in models))

    def use_partition(self, name: str) -> None:
        """Fill in the partition, as a site does."""
        path = self.folder / "profiles/slurm/config.yaml"
        text = path.read_text()
        changed = text.replace("  slurm_partition: gpu ", f"  slurm_partition: {name} ")
        assert changed != text
        path.write_text(changed)

    def workers(self) -> dict[str, psutil.Process]:
        """The processes that run a stage, by the cost record that each will write: ``train/<base>/<model>.json``."""
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if process.cwd() == str(self.folder) and "mergebench" in [Path(word).name for word in words[1:2]]:
                    found |= {word.partition("/costs/")[2]: process for word in words if "/costs/" in word}
        return found

    def freeze(self, workflow: Workflow, cost: str, at: str) -> list[Path]:
        """Stop a worker as soon as its state folder has a file that matches `at`; returns those files.

        The worker then hangs, as it would on a file server that does not answer.
        """
        worker = workflow.until(f"a worker that will write {cost}", lambda: self.workers().get(cost))
        state = workflow.until(f"its lease for {cost}", lambda: self._held_by(worker.pid), pause=0.02)
        workflow.until(f"{at} of {cost}", lambda: any(state.glob(at)), pause=0.01)
        worker.suspend()
        return sorted(state.glob(at))

    def freeze_all(self, workflow: Workflow, count: int) -> list[psutil.Process]:
        """Stop that many workers, wherever they are; returns them."""
        found = workflow.until(f"{count} jobs work", lambda: len(workers := self.workers()) == count and workers)
        for worker in found.values():
            worker.suspend()
        return list(found.values())

    def log(self, cost: str) -> str:
        """What the last attempt of a job printed."""
        return (self.results / "logs" / Path(cost).with_suffix(".log")).read_text()

    def _held_by(self, pid: int) -> Path | None:
        leases = self.results.glob(".state/*/lease")
        return next((lease.parent for lease in leases if lease.read_text().startswith(f"process {pid} on ")), None)

    def tables(self) -> dict[str, str]:
        """The tables, without the tables, the columns and the claims that rest on what a run cost."""
        return {path.name: _without_costs(path) for path in sorted(self.results.glob("tables/*.csv")) if path.name not in COST_TABLES}

    def jobs(self, word: str = "", *, state: str = "") -> list[SlurmJob]:
        """The jobs of this campaign that Slurm remembers, oldest first; those with `word` in their description."""
        text = scontrol("show", "job", "--oneliner")
        every = [SlurmJob(dict(re.findall(r"(?:^| )([A-Za-z:/]+)=(\S*)", line))) for line in text.splitlines()]
        own = [job for job in every if job.facts.get("WorkDir") == str(self.folder)]
        return [job for job in own if word in job.what and state in job.state]


def _without_costs(table: Path) -> str:
    with table.open(newline="") as lines:
        header, *rows = (row for row in csv.reader(lines) if row[0] not in COST_CLAIMS)
    kept = [i for i, column in enumerate(header) if column not in COST_COLUMNS]
    return "\n".join(",".join(row[i] for i in kept) for row in (header, *rows))
