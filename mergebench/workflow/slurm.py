"""The Slurm executor of Snakemake, made so that a workflow neither waits for ever nor takes a failure for success.

The plugin's own status loop forgets all jobs after an outage that outlasts its attempts, asks an accounting database
that may not be there, and waits for ever for jobs that are preempted for good, cancelled (as accounting words it) or
no longer known to Slurm. `SteadyExecutor` replaces that loop and leaves the rest, such as the sbatch command, to the
plugin of the version that it was written for.
"""

import asyncio
import importlib.metadata
import math
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergebench.workflow import ends, source, squeue
from mergebench.workflow.ends import Reason
from mergebench.workflow.evidence import last_lines, outputs_now, tail

PLUGIN = "snakemake-executor-plugin-slurm"
VERSION = "2.6.1"
PATIENCE = 3  # answers in a row after which a job's absence, or a state that Slurm may still change, is final
SUBMISSION_SECONDS = 30 * 60  # for which a submission that Slurm does not answer is repeated
SUBMISSION_PAUSE = 20
OUTAGE_SECONDS = 10 * 60  # between two warnings about the same outage
NOTICE_SECONDS = 15 * 60  # the earliest warning signal before a time limit, with a margin (profiles/slurm: --signal)
LINES = 12
NO_ANSWER = re.compile(
    r"Unable to contact slurm controller|Socket timed out|Connection (refused|timed out|reset)|Zero Bytes were transmitted|"
    r"temporarily un(able|available)|Communication connection failure|slurm_(receive|send)_\w*: |Transport endpoint",
    re.IGNORECASE,
)
# Reasons of pending jobs that do not pass by themselves, without spaces and in lower case.
NEVER = re.compile(r"badconstraints|partition(time|node)limit|jobheld|requeuedheld|notallowed|invalid(account|qos)|neversatisfied")


def harden() -> None:
    """Let the executor `slurm`, where its plugin is installed, be a `SteadyExecutor`; begin this run's record of ends."""
    from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

    registry = ExecutorPluginRegistry()
    if registry.is_installed("slurm"):
        plugin: Any = registry.get_plugin("slurm")
        if not issubclass(plugin.executor, SteadyExecutor):
            plugin.executor = type("Executor", (SteadyExecutor, plugin.executor), {})


def ignore_warning_signal() -> None:
    """Survive the signal that warns of the time limit, for processes between Slurm and the worker, which handles it.

    Slurm sends it to all of a step's processes, and the default is to die. The worker inherits the disposition until
    it sets its own.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def stop_on_sigterm(workflow: Any) -> None:
    """Let SIGTERM do what Ctrl-C does: cancel the jobs of this run and end. Snakemake would wait for them, for days."""
    if workflow.executor_plugin.name == "slurm":
        signal.signal(signal.SIGTERM, signal.default_int_handler)


class _NoAnswer(Exception):
    """Slurm did not answer a submission."""


if TYPE_CHECKING:
    _Base = Any
else:
    _Base = object


class SteadyExecutor(_Base):
    """Mixed in before the plugin's `Executor`."""

    next_seconds_between_status_checks: int

    def __post_init__(self, *arguments: Any, **options: Any) -> None:
        from snakemake_interface_common.exceptions import WorkflowError

        found = importlib.metadata.version(PLUGIN)
        if found != VERSION:
            raise WorkflowError(
                f"mergebench: {PLUGIN} {found} is installed, and this workflow knows version {VERSION}, whose faults it corrects; "
                f"install the locked environment (envs/), or `pip install {PLUGIN}=={VERSION}`."
            )
        ends.begin(source.FOLDER)
        self._stopping = threading.Event()
        self._doubts: Counter[str] = Counter()  # answers in a row that leave a job's fate open
        self._told: set[str] = set()
        self._outputs_before: dict[int, dict[str, tuple[int, int] | None]] = {}
        self._silent_since: float | None = None
        self._last_warning = 0.0
        super().__post_init__(*arguments, **options)

    # -- submission ----------------------------------------------------------------------------------------

    def get_snakefile(self) -> str:
        """The Snakefile of the run's locked source, so that jobs read no rules that were edited since."""
        copy = os.environ.get(source.VARIABLE)
        return str(self.snakefile) if copy is None else str(Path(copy) / Path(self.snakefile).name)

    def run_jobs(self, jobs: list[Any]) -> None:
        """Announce the jobs, which the plugin forgets, and submit them."""
        for job in jobs:
            self.run_job_pre(job)
        super().run_jobs(jobs)

    def run_job(self, job: Any) -> None:
        """Submit a job; repeat it while Slurm does not answer. Any other error fails the job.

        The plugin calls this in a thread whose exceptions nobody sees: the job would be waited for, for ever.
        """
        if job.resources.get("gpu_model") and not job.resources.get("gpu"):
            job.resources.gpu_model = ""  # the profile's default is meant for jobs with GPUs; others would ask for `a100:0`
        self._outputs_before[job.jobid] = outputs_now(job)
        deadline = time.monotonic() + SUBMISSION_SECONDS
        while not self._stopping.is_set():
            try:
                super().run_job(job)
                return
            except _NoAnswer as error:
                if time.monotonic() > deadline:
                    self._fail_submission(job, str(error))
                    return
                self.logger.warning(f"Slurm does not answer; the submission of job {job.jobid} is repeated: {last_lines(str(error), 2)}")
                self._stopping.wait(SUBMISSION_PAUSE)
            except Exception as error:
                self._fail_submission(job, f"The job could not be submitted: {error}\n")
                return

    def _report_job_error_threadsafe(self, job_info: Any, msg: str) -> None:
        """What the plugin calls when sbatch fails."""
        if NO_ANSWER.search(msg.partition("sbatch call:")[0]):
            raise _NoAnswer(msg)
        super()._report_job_error_threadsafe(job_info, msg)

    def _fail_submission(self, job: Any, message: str) -> None:
        from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

        super()._report_job_error_threadsafe(SubmittedJobInfo(job), message)

    # -- the end of the workflow ---------------------------------------------------------------------------

    def cancel(self) -> None:
        """Submit nothing more, and cancel every job of this run."""
        self._stopping.set()
        self._job_submission_executor.shutdown(wait=True, cancel_futures=True)
        super().cancel()

    def cancel_jobs(self, active_jobs: list[Any]) -> None:
        """Cancel by the run's name: the list lacks the jobs that are just being asked about or submitted."""
        clusters = ["--clusters=all"] if self._submitted_job_clusters else []
        command = ["scancel", f"--name={self.run_uuid}", *clusters]
        try:
            subprocess.run(command, capture_output=True, text=True, timeout=squeue.SECONDS, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or error
            self.logger.error(f"The jobs of this run could not be cancelled ({said}); do it later with `{' '.join(command)}`.")

    async def sleep(self) -> None:
        """Wait until the next question is due, or the workflow ends."""
        until = time.monotonic() + self.next_seconds_between_status_checks
        while self.wait and time.monotonic() < until:
            await asyncio.sleep(min(1.0, max(0.0, until - time.monotonic())))

    # -- the status loop -----------------------------------------------------------------------------------

    async def check_active_jobs(self, active_jobs: list[Any]) -> AsyncIterator[Any]:
        """Report the jobs that have ended and yield all others, without an answer of Slurm all of them."""
        self.next_seconds_between_status_checks = self.workflow.executor_settings.init_seconds_before_status_checks
        if not active_jobs:
            return
        async with self.status_rate_limiter:
            answer = await asyncio.to_thread(squeue.ask, self.run_uuid, self._submitted_job_clusters)
        self._tell_outage(answer is None)
        for info in active_jobs:
            if answer is None or not self._settle(info, answer.get(info.external_jobid)):
                yield info

    def _settle(self, info: Any, record: squeue.Record | None) -> bool:
        """Report a job if it has ended; whether it has."""
        if record is None or record.state == "UNKNOWN" or record.state in squeue.PASSING:
            self._doubts[info.external_jobid] += 1
            if self._doubts[info.external_jobid] < PATIENCE:
                return False
        else:
            self._doubts[info.external_jobid] = 0
        if record is None or record.state == "UNKNOWN":
            record = squeue.accounted(info.external_jobid)
            if record is None or record.state not in {squeue.DONE, *squeue.FAILED, *squeue.PASSING}:
                record = self._by_outputs(info.job)
        if record.state == squeue.DONE:
            self._remove_log(info)
            self.report_job_success(info)
            return True
        if record.state in squeue.FAILED or record.state in squeue.PASSING:
            self._fail(info, record)
            return True
        self._tell_hopeless(info, record)
        return False

    def _by_outputs(self, job: Any) -> squeue.Record:
        """Judge a job that nobody knows any more: it has succeeded if all of its outputs are new since its submission."""
        before, now = self._outputs_before.get(job.jobid, {}), outputs_now(job)
        made = all(state is not None and state != before.get(path) for path, state in now.items())
        return squeue.Record(squeue.DONE) if made else squeue.Record("ERROR", reason="Slurm no longer knows it, and outputs are missing")

    def _fail(self, info: Any, record: squeue.Record) -> None:
        slurm_log = info.aux.get("slurm_logfile") if info.aux else None
        log = tail(slurm_log)
        own = "\n".join(filter(None, (tail(path) for path in info.job.log)))
        text = None if log is None else f"{log}\n{own}"
        reason = ends.reason_of(record.state, text, record.seconds, record.limit, NOTICE_SECONDS, record.reason)
        try:
            ends.record(info.job.rule.name, info.job.wildcards_dict, reason)
            message = self._explain(info, record, reason, own or log or "")
        except Exception as error:  # such as a full disk; it must not end the thread that watches all other jobs
            message = f"Slurm job {info.external_jobid} ended as {record.state} ({reason}); its end could not be recorded: {error}\n"
        self.report_job_error(info, msg=message, aux_logs=[str(slurm_log)] if slurm_log else [])

    def _explain(self, info: Any, record: squeue.Record, reason: Reason, log: str) -> str:
        job = info.job
        why = f": {record.reason}" if record.reason not in ("", "None") else ""
        where = f" on {record.nodes}" if record.nodes else ""
        text = f"Slurm job {info.external_jobid} ended as {record.state} ({reason}{why}) after {math.ceil(record.seconds / 60)} min{where}."
        if job.restart_times >= job.attempt:
            old, new = (_request(job, attempt) for attempt in (job.attempt, job.attempt + 1))
            changes = [f"{name} {new[name]} instead of {old[name]}" for name in new if new[name] != old[name]]
            asks = f"asks for {' and '.join(changes)}" if changes else "asks for the same"
            text += f" Attempt {job.attempt + 1} of {job.restart_times + 1} {asks}."
        else:
            text += " It is not tried again in this run."
        return f"{text}\n{last_lines(log, LINES)}\n"

    def _remove_log(self, info: Any) -> None:
        """Delete the Slurm log of a job that succeeded, unless these are kept; its rule's log stays."""
        if not self.workflow.executor_settings.keep_successful_logs and info.aux:
            try:
                info.aux["slurm_logfile"].unlink(missing_ok=True)
            except OSError as error:
                self.logger.warning(f"The log {info.aux['slurm_logfile']} could not be deleted: {error}")

    def _tell_outage(self, silent: bool) -> None:
        now = time.monotonic()
        if not silent:
            if self._silent_since is not None:
                self.logger.warning(f"Slurm answers again, after {now - self._silent_since:.0f} s.")
            self._silent_since, self._last_warning = None, 0.0
            return
        self._silent_since = self._silent_since or now
        if not self._last_warning or now - self._last_warning > OUTAGE_SECONDS:
            self._last_warning = now
            self.logger.warning(f"Slurm has not answered for {now - self._silent_since:.0f} s; the workflow waits, and keeps its jobs.")

    def _tell_hopeless(self, info: Any, record: squeue.Record) -> None:
        reason = re.sub(r"[^a-z]", "", record.reason.lower())
        if record.state == "PENDING" and NEVER.search(reason) and info.external_jobid not in self._told:
            self._told.add(info.external_jobid)
            self.logger.warning(
                f"Slurm job {info.external_jobid} ({info.job.rule.name}) waits for a reason that does not pass by itself: {record.reason}. "
                f"Correct the profile's resources, or release the job; `scancel {info.external_jobid}` lets it be submitted again."
            )


def _request(job: Any, attempt: int) -> dict[str, Any]:
    """Memory (MB) and run time (minutes) that an attempt of a job asks for."""
    resources = job.rule.expand_resources(job.wildcards_dict, job.input, attempt, skip_evaluation={"tmpdir"})
    return {name: resources.get(name) for name in ("mem_mb", "runtime")}
