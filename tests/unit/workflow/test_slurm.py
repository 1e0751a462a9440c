"""The status loop loses no job, takes no failure for success, and waits for nothing that cannot come."""

import asyncio
import inspect
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import snakemake_executor_plugin_slurm as plugin
from hypothesis import given
from hypothesis import strategies as st
from snakemake.iocontainers import ResourceList
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from mergebench.workflow import ends, evidence, slurm, source, squeue
from mergebench.workflow.slurm import PATIENCE, SteadyExecutor
from mergebench.workflow.squeue import Record

Executor = type("Executor", (SteadyExecutor, plugin.Executor), {})
ACTIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "STAGE_OUT")


class Free:
    """A rate limiter that does not limit."""

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return False


class Job(SimpleNamespace):
    """As much of a Snakemake job as the executor looks at; its request follows from the attempt."""

    def __init__(self, number: int, folder: Path, attempt: int = 1, **resources) -> None:
        def expand(wildcards, inputs, attempt, skip_evaluation):
            factor = ends.escalation("train", wildcards, attempt)
            return {"mem_mb": 1000 * factor.memory, "runtime": 60 * factor.time}

        rule = SimpleNamespace(name="train", expand_resources=expand)
        values = ResourceList(fromdict={"gpu": 1, **resources})
        output, log = [str(folder / f"{number}.out")], [str(folder / f"{number}.log")]
        super().__init__(jobid=number, rule=rule, wildcards_dict={"n": str(number)}, input=[], output=output, log=log, resources=values)
        self.attempt, self.restart_times = attempt, 2


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.setenv(ends.VARIABLE, "")
    ends.begin(tmp_path / "records")


@pytest.fixture
def executor(record):
    return make_executor()


def make_executor():
    """An executor as after its start, without its threads; what it reports is in `succeeded` and `failed`."""
    made = object.__new__(Executor)
    settings = SimpleNamespace(init_seconds_before_status_checks=20, keep_successful_logs=False)
    made.workflow = SimpleNamespace(executor_settings=settings, remote_execution_settings=SimpleNamespace(seconds_between_status_checks=10))
    made.logger, made.run_uuid, made.snakefile, made.wait = logging.getLogger("slurm-test"), "mergebench_1", "/c/Snakefile", True
    made.status_rate_limiter, made._submitted_job_clusters, made.lock, made.active_jobs = Free(), set(), threading.Lock(), []
    made._stopping, made._doubts, made._told, made._outputs_before = threading.Event(), Counter(), set(), {}
    made._silent_since, made._last_warning, made._main_event_loop = None, 0.0, None
    made._job_submission_executor = ThreadPoolExecutor(max_workers=1)
    made.succeeded, made.failed = [], {}
    made.report_job_success = lambda info: made.succeeded.append(info.external_jobid)
    made.report_job_error = lambda info, msg=None, **_: made.failed.update({info.external_jobid or info.job.jobid: msg})
    return made


def submitted(folder: Path, number: int = 7, attempt: int = 1) -> SubmittedJobInfo:
    return SubmittedJobInfo(Job(number, folder, attempt), external_jobid=str(number), aux={"slurm_logfile": folder / f"{number}.slurm.log"})


def poll(executor, jobs: list, answer, monkeypatch, accounted=None) -> list:
    """One cycle in which squeue gives `answer`; returns the jobs that are still waited for."""

    async def collect():
        return [info async for info in executor.check_active_jobs(jobs)]

    with monkeypatch.context() as patched:
        patched.setattr(squeue, "ask", lambda name, clusters: answer)
        patched.setattr(squeue, "accounted", lambda job: accounted)
        return asyncio.run(collect())


# -- the plugin ------------------------------------------------------------------------------------------------


def test_the_installed_plugin_has_the_shape_that_is_corrected():
    methods = {name for name, value in vars(SteadyExecutor).items() if inspect.isfunction(value) and hasattr(plugin.Executor, name)}
    assert methods > {"run_jobs", "run_job", "check_active_jobs", "cancel_jobs", "cancel", "sleep", "_report_job_error_threadsafe"}
    for name in methods - {"__post_init__"}:
        steady, original = (inspect.signature(getattr(cls, name)) for cls in (SteadyExecutor, plugin.Executor))
        assert list(steady.parameters) == list(original.parameters), name
    body = inspect.getsource(plugin.Executor)
    assert "_job_submission_executor.submit(self.run_job, job)" in body
    assert "SLURM sbatch failed. " in body
    assert "    sbatch call:\\n" in body


def test_another_version_of_the_plugin_is_refused(executor, monkeypatch):
    monkeypatch.setattr(slurm.importlib.metadata, "version", lambda name: "9.9.9")
    with pytest.raises(WorkflowError, match=r"plugin-slurm 9\.9\.9 is installed.*pip install snakemake-executor-plugin-slurm=="):
        executor.__post_init__()


def test_the_executor_named_slurm_is_replaced_once():
    registry = ExecutorPluginRegistry()
    before = registry.get_plugin("slurm").executor
    try:
        slurm.harden()
        first = registry.get_plugin("slurm").executor
        slurm.harden()
        assert registry.get_plugin("slurm").executor is first
        assert issubclass(first, (SteadyExecutor, plugin.Executor))
    finally:
        registry.get_plugin("slurm").executor = before


# -- ends of jobs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ACTIVE)
def test_a_job_on_its_way_is_waited_for(executor, tmp_path, monkeypatch, state):
    jobs = [submitted(tmp_path)]
    for _ in range(2 * PATIENCE):
        assert poll(executor, jobs, {"7": Record(state)}, monkeypatch) == jobs
    assert executor.succeeded == []
    assert executor.failed == {}


def test_a_completed_job_succeeds_and_its_slurm_log_goes(executor, tmp_path, monkeypatch):
    info = submitted(tmp_path)
    info.aux["slurm_logfile"].write_text("chatter")
    assert poll(executor, [info], {"7": Record("COMPLETED")}, monkeypatch) == []
    assert executor.succeeded == ["7"]
    assert not info.aux["slurm_logfile"].exists()


@pytest.mark.parametrize("state", sorted(squeue.FAILED))
def test_a_failed_job_fails_at_once(executor, tmp_path, monkeypatch, state):
    assert poll(executor, [submitted(tmp_path)], {"7": Record(state)}, monkeypatch) == []
    assert list(executor.failed) == ["7"]


@pytest.mark.parametrize("state", sorted(squeue.PASSING))
def test_a_job_that_slurm_puts_back_is_waited_for(executor, tmp_path, monkeypatch, state):
    jobs = [submitted(tmp_path)]
    for word in [state] * (PATIENCE - 1) + ["PENDING", "RUNNING"] + [state] * (PATIENCE - 1) + ["PENDING"]:
        assert poll(executor, jobs, {"7": Record(word)}, monkeypatch) == jobs
    assert poll(executor, jobs, {"7": Record("COMPLETED")}, monkeypatch) == []
    assert executor.failed == {}


@pytest.mark.parametrize("state", sorted(squeue.PASSING))
def test_a_job_that_slurm_does_not_put_back_fails_and_asks_for_the_same(executor, tmp_path, monkeypatch, state):
    jobs = [submitted(tmp_path)]
    for _ in range(PATIENCE - 1):
        assert poll(executor, jobs, {"7": Record(state)}, monkeypatch) == jobs
    assert poll(executor, jobs, {"7": Record(state)}, monkeypatch) == []
    assert "Attempt 2 of 3 asks for the same." in executor.failed["7"]


# -- jobs that Slurm has forgotten -----------------------------------------------------------------------------


def forget(executor, info, monkeypatch, answer=None, accounted=None) -> None:
    executor._outputs_before[info.job.jobid] = evidence.outputs_now(info.job)
    if answer == "made":
        Path(info.job.output[0]).write_text("new")
    for _ in range(PATIENCE - 1):
        assert poll(executor, [info], {}, monkeypatch, accounted) == [info]
    assert poll(executor, [info], {}, monkeypatch, accounted) == []


def test_a_forgotten_job_whose_outputs_are_new_has_succeeded(executor, tmp_path, monkeypatch):
    forget(executor, submitted(tmp_path), monkeypatch, "made")
    assert executor.succeeded == ["7"]


def test_a_forgotten_job_without_outputs_is_repeated(executor, tmp_path, monkeypatch):
    forget(executor, submitted(tmp_path), monkeypatch)
    assert "Slurm no longer knows it" in executor.failed["7"]
    assert "mem_mb 2000 instead of 1000 and runtime 120 instead of 60" in executor.failed["7"]


def test_outputs_from_before_its_submission_prove_nothing(executor, tmp_path, monkeypatch):
    info = submitted(tmp_path)
    Path(info.job.output[0]).write_text("of an earlier run")
    forget(executor, info, monkeypatch)
    assert executor.succeeded == []


def test_accounting_knows_better_where_there_is_one(executor, tmp_path, monkeypatch):
    forget(executor, submitted(tmp_path), monkeypatch, accounted=Record("TIMEOUT"))
    assert "ended as TIMEOUT (out of time)" in executor.failed["7"]


def test_a_runaway_job_of_accounting_is_not_waited_for(executor, tmp_path, monkeypatch):
    forget(executor, submitted(tmp_path), monkeypatch, accounted=Record("RUNNING"))
    assert list(executor.failed) == ["7"]


def test_unknown_is_no_success(executor, tmp_path, monkeypatch):
    info = submitted(tmp_path)
    for _ in range(PATIENCE):
        poll(executor, [info], {"7": Record("UNKNOWN")}, monkeypatch)
    assert executor.succeeded == []
    assert list(executor.failed) == ["7"]


# -- outages ---------------------------------------------------------------------------------------------------


def test_no_job_is_lost_in_an_outage_of_any_length(executor, tmp_path, monkeypatch, caplog):
    jobs = [submitted(tmp_path, n) for n in (7, 8)]
    for _ in range(100):
        assert poll(executor, jobs, None, monkeypatch) == jobs
    assert poll(executor, jobs, {"7": Record("COMPLETED"), "8": Record("RUNNING")}, monkeypatch) == jobs[1:]
    assert executor.succeeded == ["7"]
    assert caplog.text.count("has not answered") == 1
    assert caplog.text.count("answers again") == 1


STATES = st.sampled_from([*ACTIVE, *sorted(squeue.FAILED), *sorted(squeue.PASSING), "COMPLETED", "UNKNOWN", "A_NEW_STATE", ""])


@given(answers=st.lists(st.none() | st.dictionaries(st.sampled_from(["1", "2", "3"]), STATES.map(Record)), max_size=12))
def test_every_job_is_waited_for_or_reported_once(tmp_path_factory, answers):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(ends.VARIABLE, "")
        folder = tmp_path_factory.mktemp("polls")
        ends.begin(folder)
        executor = make_executor()
        everything = waiting = [submitted(folder, n) for n in (1, 2, 3)]
        for answer in answers:
            waiting = poll(executor, waiting, answer, patched)
            told = Counter([*executor.succeeded, *executor.failed, *(info.external_jobid for info in waiting)])
            assert told == Counter(info.external_jobid for info in everything)


def test_an_end_that_cannot_be_recorded_is_reported_all_the_same(executor, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(ends, "record", full)
    assert poll(executor, [submitted(tmp_path), submitted(tmp_path, 8)], dict.fromkeys("78", Record("FAILED")), monkeypatch) == []
    assert list(executor.failed) == ["7", "8"]
    assert "No space left on device" in executor.failed["7"]


# -- what is said ----------------------------------------------------------------------------------------------


def test_a_failure_says_why_what_is_asked_next_and_what_the_job_said_last(executor, tmp_path, monkeypatch):
    info = submitted(tmp_path)
    info.aux["slurm_logfile"].write_text("slurmstepd: error: StepId=1.0 exceeded memory limit (6 > 3), being killed\n")
    Path(info.job.log[0]).write_text("".join(f"step {n}\n" for n in range(50)))
    poll(executor, [info], {"7": Record("FAILED", 125.0, 3600.0, "n1", "NonZeroExitCode")}, monkeypatch)
    first, *rest = executor.failed["7"].rstrip("\n").splitlines()
    assert first.startswith("Slurm job 7 ended as FAILED (out of memory: NonZeroExitCode) after 3 min on n1.")
    assert first.endswith("Attempt 2 of 3 asks for mem_mb 2000 instead of 1000.")
    assert rest == [f"    step {n}" for n in range(50 - slurm.LINES, 50)]


def test_the_last_attempt_says_so(executor, tmp_path, monkeypatch):
    poll(executor, [submitted(tmp_path, attempt=3)], {"7": Record("TIMEOUT")}, monkeypatch)
    assert "It is not tried again in this run." in executor.failed["7"]


@pytest.mark.parametrize("reason", ["PartitionTimeLimit", "BadConstraints", "JobHeldAdmin", "launch failed requeued held"])
def test_a_wait_that_cannot_end_is_told_once(executor, tmp_path, monkeypatch, caplog, reason):
    for _ in range(3):
        poll(executor, [submitted(tmp_path)], {"7": Record("PENDING", reason=reason)}, monkeypatch)
    assert caplog.text.count(reason) == 1


@pytest.mark.parametrize("reason", ["Resources", "Priority", "QOSMaxGRESPerUser", "AssocGrpGRES", "None"])
def test_an_ordinary_wait_is_not_told(executor, tmp_path, monkeypatch, caplog, reason):
    poll(executor, [submitted(tmp_path)], {"7": Record("PENDING", reason=reason)}, monkeypatch)
    assert caplog.text == ""


# -- submission ------------------------------------------------------------------------------------------------


def sbatch_fails(message: str):
    text = f"SLURM sbatch failed. The error message was '{message}'.\n    sbatch call:\n        sbatch ...\n"

    def run_job(self, job):
        self._report_job_error_threadsafe(SubmittedJobInfo(job), text)

    return run_job


def test_a_submission_that_slurm_does_not_answer_is_repeated_until_it_does(executor, tmp_path, monkeypatch):
    answers = [sbatch_fails("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)")] * 3
    monkeypatch.setattr(plugin.Executor, "run_job", lambda self, job: answers.pop()(self, job) if answers else done.append(job))
    monkeypatch.setattr(slurm, "SUBMISSION_PAUSE", 0)
    done: list[Job] = []
    job = Job(7, tmp_path)
    executor.run_job(job)
    assert done == [job]
    assert executor.failed == {}


def test_a_submission_is_not_repeated_for_ever(executor, tmp_path, monkeypatch):
    monkeypatch.setattr(plugin.Executor, "run_job", sbatch_fails("Socket timed out on send/recv operation"))
    monkeypatch.setattr(slurm, "SUBMISSION_PAUSE", 0)
    monkeypatch.setattr(slurm, "SUBMISSION_SECONDS", 0)
    executor.run_job(Job(7, tmp_path))
    assert "Socket timed out" in executor.failed[7]


def test_a_refused_submission_fails_the_job_at_once(executor, tmp_path, monkeypatch):
    monkeypatch.setattr(plugin.Executor, "run_job", sbatch_fails("sbatch: error: invalid partition specified: nowhere"))
    executor.run_job(Job(7, tmp_path))
    assert "invalid partition" in executor.failed[7]


def test_an_exception_before_sbatch_fails_the_job_and_is_not_swallowed(executor, tmp_path, monkeypatch):
    def run_job(self, job):
        raise WorkflowError("The given account appears to be invalid.")

    monkeypatch.setattr(plugin.Executor, "run_job", run_job)
    executor.run_job(Job(7, tmp_path))
    assert "account appears to be invalid" in executor.failed[7]


@pytest.mark.parametrize(("gpu", "expected"), [(0, ""), (2, " --gpus=a100:2")])
def test_a_gpu_model_for_all_jobs_is_asked_for_by_those_with_gpus(executor, tmp_path, monkeypatch, gpu, expected):
    strings: list[str] = []
    monkeypatch.setattr(plugin.Executor, "run_job", lambda self, job: strings.append(plugin.set_gres_string(job)))
    executor.run_job(Job(7, tmp_path, gpu=gpu, gpu_model="a100"))
    assert strings == [expected]


def test_submitted_jobs_are_announced(executor, tmp_path, monkeypatch):
    told: list[Job] = []
    monkeypatch.setattr(Executor, "run_job_pre", lambda self, job: told.append(job))
    monkeypatch.setattr(plugin.Executor, "run_jobs", lambda self, jobs: None)
    jobs = [Job(1, tmp_path), Job(2, tmp_path)]
    executor.run_jobs(jobs)
    assert told == jobs


def test_jobs_read_the_locked_snakefile(executor, tmp_path, monkeypatch):
    assert executor.get_snakefile() == "/c/Snakefile"
    (tmp_path / "Snakefile").touch()
    monkeypatch.setenv(source.VARIABLE, str(tmp_path))
    assert executor.get_snakefile() == f"{tmp_path}/Snakefile"


# -- the end ---------------------------------------------------------------------------------------------------


def test_cancelling_stops_submissions_and_cancels_by_name(executor, tmp_path, monkeypatch):
    commands, begun = [], []
    release = threading.Event()
    monkeypatch.setattr(slurm.subprocess, "run", lambda command, **_: commands.append(command))
    monkeypatch.setattr(plugin.Executor, "run_job", lambda self, job: (begun.append(job.jobid), release.wait(10)))
    monkeypatch.setattr(Executor, "shutdown", lambda self: None)
    for number in (1, 2, 3):
        executor._job_submission_executor.submit(executor.run_job, Job(number, tmp_path))
    while not begun:
        time.sleep(0.01)
    threading.Timer(0.1, release.set).start()
    executor.cancel()
    assert begun == [1]
    assert commands == [["scancel", "--name=mergebench_1"]]


def test_a_cancellation_that_fails_says_what_to_do(executor, monkeypatch, caplog):
    def absent(command, **_):
        raise subprocess.CalledProcessError(1, command, stderr="Unable to contact slurm controller")

    monkeypatch.setattr(slurm.subprocess, "run", absent)
    executor.cancel_jobs([])
    assert "Unable to contact slurm controller" in caplog.text
    assert "scancel --name=mergebench_1" in caplog.text


def test_the_interval_is_constant_and_the_end_does_not_wait_for_it(executor, tmp_path, monkeypatch):
    for _ in range(5):
        poll(executor, [submitted(tmp_path)], {"7": Record("RUNNING")}, monkeypatch)
    assert executor.next_seconds_between_status_checks == 20
    executor.wait = False
    started = time.monotonic()
    asyncio.run(executor.sleep())
    assert time.monotonic() - started < 5


def test_sigterm_ends_a_slurm_run_as_ctrl_c_does_and_leaves_others_alone():
    previous = signal.getsignal(signal.SIGTERM)
    try:
        slurm.stop_on_sigterm(SimpleNamespace(executor_plugin=SimpleNamespace(name="local")))
        assert signal.getsignal(signal.SIGTERM) == previous
        slurm.stop_on_sigterm(SimpleNamespace(executor_plugin=SimpleNamespace(name="slurm")))
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_the_warning_before_a_time_limit_reaches_the_worker_and_kills_nobody_on_the_way(tmp_path):
    """As in a job: one process that ignores it, the rule's shell, and a worker with a handler of its own."""
    worker = "import signal, sys; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75)); print('ready', flush=True); signal.pause()"
    between = f"""
import subprocess, sys
from mergebench.workflow import slurm
slurm.ignore_warning_signal()
command = "set -euo pipefail; exec {sys.executable} -c \\"{worker}\\" 2> log"
raise SystemExit(subprocess.call(command, shell=True, executable="/bin/bash"))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(slurm.__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", between], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline().strip() == "ready"
    os.killpg(process.pid, signal.SIGUSR1)
    assert process.wait(timeout=30) == 75
