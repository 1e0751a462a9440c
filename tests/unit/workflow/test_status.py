"""What `mergebench status` reads from files, leases and Slurm."""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mergebench import cli, config
from mergebench.attempts import ENDED, UNKNOWN
from mergebench.attempts import RUNNING as ATTEMPT
from mergebench.workflow.doctor.commands import Answer
from mergebench.workflow.jobs import PlannedJob, planned_jobs
from mergebench.workflow.lock import LOCKS
from mergebench.workflow.plan import Plan
from mergebench.workflow.status import look as module
from mergebench.workflow.status import queue
from mergebench.workflow.status.evidence import holder
from mergebench.workflow.status.look import elapsed, look
from mergebench.workflow.status.reasons import INTERRUPTED, last_lines, reason
from mergebench.workflow.status.render import as_data, as_text, duration

ROOT = Path(__file__).parents[3]
TWIN = "tiny-llama-strong"
# Lines of a real Slurm 22.05.8 and of the libraries.
TIMEOUT = "slurmstepd-n1: error: *** JOB 5 ON n1 CANCELLED AT 2026-11-22T06:03:52 DUE TO TIME LIMIT ***\n"
CANCELLED = "slurmstepd-n1: error: *** JOB 5 ON n1 CANCELLED AT 2026-11-22T06:03:52 ***\n"
PREEMPTED = "slurmstepd-n1: error: *** JOB 5 ON n1 CANCELLED AT 2026-11-22T06:03:52 DUE TO PREEMPTION ***\n"
NODE_LOST = (
    "slurmstepd-n1: error: *** JOB 5 ON n1 CANCELLED AT 2026-11-22T06:03:52 DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***\n"
)
MEMORY = "slurmstepd-n1: error: StepId=1.0 exceeded memory limit (642981888 > 314572800), being killed\n" + CANCELLED
MEMORY_CGROUP = "slurmstepd-n1: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been OOM Killed.\n"
TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n'
QUEUE = """\
19|PENDING|0:00||Priority|mergebench_9779ebba-e4f4|{folder}|rule_merge_wildcards_tiny-llama-strong_model_soup
16|RUNNING|1-02:00:22|n1|None|mergebench_9779ebba-e4f4|{folder}|rule_statistics_wildcards_tiny-llama-strong_safety_fisher
20|RUNNING|0:22|n2|None|mergebench_9779ebba-e4f4|/elsewhere|rule_statistics_wildcards_tiny-llama-strong_safety_gram
21|RUNNING|0:22|n2|None|another|{folder}|rule_statistics_wildcards_tiny-llama-strong_safety_mask
"""


@pytest.fixture
def plan(tmp_path, monkeypatch) -> Plan:
    """The micro campaign in a folder where nothing has been made, on a machine without Slurm."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(queue, "ask", lambda *_, **__: Answer(None, error="squeue is not installed"))
    return Plan(config.load(ROOT / "config.yaml", preset="micro"))


def find(plan: Plan, title: str) -> PlannedJob:
    return next(job for job in planned_jobs(plan) if job.title == title)


def finish(job: PlannedJob, **cost: object) -> None:
    for output in map(Path, job.outputs):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text("{}")
    record = {"wall_seconds": 10.0, "gpu_seconds": 0.0, "attempts": {"wall_seconds": 0.0, "gpu_seconds": 0.0}}
    Path(job.cost).write_text(json.dumps(record | cost))
    write(Path(job.log), "[train] steps: 3/3, 1 s\n")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def hold(path: Path, who: str) -> int:
    """Lock a file as its holder does; returns the descriptor, which keeps the lock."""
    write(path, who)
    descriptor = os.open(path, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def test_a_fresh_folder_says_that_nothing_has_been_made(plan, tmp_path):
    status = look(plan)
    assert status.total["waiting"] == sum(status.total.values()) == sum(plan.job_counts().values()) - len(plan.bases) - 1
    assert as_text(status).splitlines()[-1] == "nothing has been made yet"
    assert list(tmp_path.iterdir()) == []


def test_a_finished_campaign_has_nothing_left(plan):
    for job in planned_jobs(plan):
        finish(job, gpu_seconds=36.0)
    status = look(plan)
    assert set(+status.total) == {"done"}
    assert status.rest_seconds == status.rest_gpu_seconds == 0
    assert status.gpu_seconds == 36 * sum(status.total.values())
    assert "left:" not in as_text(status)
    assert "goes on from here" not in as_text(status)


def test_a_job_is_done_when_all_its_outputs_are_there(plan):
    job = find(plan, f"evaluate_general {TWIN} merged_ties")
    finish(job)
    assert look(plan).counts["evaluate_general"]["done"] == 1
    Path(job.outputs[0]).unlink()
    counts = look(plan).counts["evaluate_general"]
    assert (counts["done"], counts["failed"]) == (0, 0)


def test_a_held_lease_is_a_running_job(plan):
    job = find(plan, f"tune {TWIN} ties")
    write(Path(job.log), "[tune] candidates: 1/4, 2 s\r[tune] candidates: 3/4, 9 s, about 3 s left\n")
    write(Path(job.state(plan), ATTEMPT), json.dumps({"start": "2026-11-22T06:00:00+00:00"}))
    descriptor = hold(Path(job.state(plan), "lease"), "process 7 on n5")
    status = look(plan)
    (running,) = status.running
    assert (running.title, running.host) == (job.title, "n5")
    assert running.progress == "[tune] candidates: 3/4, 9 s, about 3 s left"
    assert running.seconds == pytest.approx(time.time() - 1795327200, abs=5)
    assert f"running: tune {TWIN} ties on n5" in as_text(status)
    os.close(descriptor)
    assert look(plan).running == []
    assert [failed.title for failed in look(plan).failed] == [job.title]


def test_a_controller_is_alive_while_it_holds_the_folder(plan):
    descriptor = hold(LOCKS / "micro.lock", "process 3 on login1")
    assert look(plan).controller == "process 3 on login1"
    os.close(descriptor)
    assert look(plan).controller == ""
    assert "no workflow is running it" in as_text(look(plan))


def test_looking_does_not_take_the_lock(plan):
    path = write(LOCKS / "micro.lock", "process 3 on login1")
    assert holder(path) == ""
    with path.open("r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert path.read_text() == "process 3 on login1"


def test_a_job_whose_process_is_only_starting_has_not_failed(plan):
    job = find(plan, f"merge {TWIN} ties")
    write(Path(job.log), "")
    assert [f.title for f in look(plan).failed] == [job.title]
    descriptor = hold(LOCKS / "micro.lock", "process 3 on login1")
    assert [r.title for r in look(plan).running] == [job.title]
    old = time.time() - 2 * module.STARTING_SECONDS
    os.utime(job.log, (old, old))
    assert [f.title for f in look(plan).failed] == [job.title]
    os.close(descriptor)


def test_slurm_says_what_is_queued_and_what_runs(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(queue, "ask", lambda *_, **__: Answer(0, QUEUE.format(folder=tmp_path)))
    status = look(plan)
    assert status.counts["merge"]["queued"] == 1
    assert status.counts["statistics"]["running"] == 1
    (running,) = status.running
    assert (running.title, running.host, running.slurm_job) == (f"statistics {TWIN} safety fisher", "n1", "16")
    assert running.seconds == 26 * 3600 + 22


def test_jobs_of_another_preset_in_the_same_folder_are_not_taken_for_its_own(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(queue, "ask", lambda *_, **__: Answer(0, QUEUE.format(folder=tmp_path)))
    other = hold(LOCKS / "tiny.lock", "process 3 on login1")
    assert look(plan).total["running"] == look(plan).total["queued"] == 0
    own = hold(LOCKS / "micro.lock", "process 4 on login1")
    assert look(plan).total["running"] == look(plan).total["queued"] == 1
    os.close(other)
    os.close(own)


def test_a_silent_slurm_is_said_and_files_still_count(plan, monkeypatch):
    error = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    monkeypatch.setattr(queue, "ask", lambda *_, **__: Answer(1, error=error))
    finish(find(plan, f"merge {TWIN} ties"))
    status = look(plan)
    assert status.total["done"] == 1
    assert "Slurm does not answer" in as_text(status)


def test_a_failed_job_shows_its_reason_and_the_end_of_its_log(plan):
    job = find(plan, f"merge {TWIN} dare")
    write(Path(job.log), "one\ntwo\n\nthree\nmergebench: x.json is not valid JSON; delete it and run again.\n")
    (failed,) = look(plan).failed
    assert failed.reason == "x.json is not valid JSON; delete it and run again."
    assert failed.lines == ["two", "three", "mergebench: x.json is not valid JSON; delete it and run again."]
    assert f"log: {job.log}" in as_text(look(plan))


def test_the_newest_slurm_log_decides_and_speaks_for_a_job_without_a_log_of_its_own(plan):
    job = find(plan, f"train_specialist {TWIN} sft_math")
    write(Path(job.log), "")
    folder = Path("results/slurm/rule_train_specialist") / f"{TWIN}_sft_math"
    write(folder / "99.log", TIMEOUT)
    write(folder / "100.log", MEMORY)
    (failed,) = look(plan).failed
    assert failed.reason == "out of memory"
    assert failed.lines == MEMORY.splitlines()


def test_failed_attempts_are_counted_from_the_account_in_the_state(plan):
    job = find(plan, f"train_specialist {TWIN} sft_math")
    write(Path(job.log), "[train] steps: 1/3, 1 s\n")
    write(Path(job.state(plan), "lease"), "process 1 on n1")
    lines = [json.dumps({"reason": UNKNOWN}), json.dumps({"reason": "SIGTERM"}), '{"reas']
    write(Path(job.state(plan), ENDED), "\n".join(lines))
    (failed,) = look(plan).failed
    assert failed.attempts == 2
    assert failed.reason == "stopped from outside (SIGTERM)"


@pytest.mark.parametrize(
    ("log", "slurm_log", "ends", "expected"),
    [
        ("", TIMEOUT, [], "time limit"),
        ("[train] steps: 3/9\n", TIMEOUT, ["SIGTERM"], "time limit"),
        ("", CANCELLED, [], "cancelled"),
        ("", PREEMPTED, [], "preempted"),
        ("", NODE_LOST, [], "node failure"),
        ("", MEMORY, [], "out of memory"),
        ("", MEMORY_CGROUP, [], "out of memory"),
        (TRACEBACK + "MemoryError\n", "", [], "out of memory"),
        (TRACEBACK + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n", "", [], "GPU memory is full"),
        (TRACEBACK + "OSError: [Errno 28] No space left on device\n", "", [], "the disk is full, or a quota is reached"),
        (TRACEBACK + "OSError: [Errno 122] Disk quota exceeded\n", "", [], "the disk is full, or a quota is reached"),
        ("mergebench: results has no space left; free some.\n", "", [], "results has no space left; free some."),
        (
            "mergebench: The model google/gemma-2-2b is gated: log in.\n",
            "",
            [],
            "a licence or the hub's token is missing: The model google/gemma-2-2b is gated: log in.",
        ),
        (TRACEBACK + "RuntimeError: NCCL error in: x.cpp:33, unhandled system error\n", "", [], "communication between GPUs failed (NCCL)"),
        (TRACEBACK + "ModuleNotFoundError: No module named 'torch'\n", "", [], "a package is missing or does not fit"),
        (TRACEBACK + "KeyError: 'x'\n", "", [], "KeyError: 'x'"),
        (TRACEBACK + "safetensors._safetensors_rust.SafetensorError: bad\n", "", [], "safetensors._safetensors_rust.SafetensorError: bad"),
        ("", "", ["SIGINT"], "stopped from the keyboard"),
        ("", "", ["exit status 3"], "exit status 3"),
        ("", "", [UNKNOWN], INTERRUPTED),
        ("[merge] parameters: 3/9, 4 s\n", "", [], INTERRUPTED),
    ],
)
def test_reasons(log, slurm_log, ends, expected):
    assert reason(log, slurm_log, ends) == expected


def test_the_last_lines_are_those_that_a_terminal_would_show():
    assert last_lines("a\n\nb: 1\rb: 2\n   \nc\n", 2) == ["b: 2", "c"]
    assert last_lines("", 3) == []


@pytest.mark.parametrize(("text", "expected"), [("0:22", 22), ("1:00:00", 3600), ("2-00:00:01", 172_801), ("INVALID", None), ("", None)])
def test_elapsed_times_of_slurm(text, expected):
    assert elapsed(text) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(0.4, "0 s"), (61, "1 min 01 s"), (7260, "2 h 01 min"), (4_000_000, "1,111 h 06 min")])
def test_durations(seconds, expected):
    assert duration(seconds) == expected


def test_the_rest_is_estimated_from_what_finished_jobs_of_the_stage_took(plan):
    before = look(plan).rest_seconds
    one, other = (find(plan, f"merge {TWIN} {method}") for method in ("ties", "dare"))
    finish(one, wall_seconds=1e6)
    slow = look(plan).rest_seconds
    assert slow > before + 1e6
    finish(other, wall_seconds=1e6)
    assert look(plan).rest_seconds < slow


def test_time_lost_in_failed_attempts_is_summed(plan):
    finish(find(plan, f"merge {TWIN} ties"), gpu_seconds=3600.0, attempts={"wall_seconds": 90.0, "gpu_seconds": 7200.0})
    status = look(plan)
    assert (status.lost_seconds, status.gpu_seconds) == (90.0, 3 * 3600.0)
    assert "3.0 GPU-hours, 1 min 30 s of them in failed attempts" in as_text(status)


def test_a_broken_cost_record_does_not_stop_the_view(plan):
    job = find(plan, f"merge {TWIN} ties")
    finish(job)
    Path(job.cost).write_text("{")
    assert look(plan).total["done"] == 1


def test_json_has_every_rule_and_state(plan):
    finish(find(plan, f"merge {TWIN} ties"))
    data = json.loads(json.dumps(as_data(look(plan))))
    assert data["total"]["done"] == data["counts"]["merge"]["done"] == 1
    assert set(data["counts"]) == set(plan.job_counts()) - {"all", "admit"}
    assert set(data["total"]) == {"done", "running", "queued", "failed", "waiting"}


def test_many_failures_are_cut_short_in_text_only(plan):
    for job in planned_jobs(plan):
        if job.stage == "evaluate":
            write(Path(job.log), "mergebench: no.\n")
    status = look(plan)
    assert len(status.failed) > 10
    assert as_text(status).count("\nfailed: ") == 10
    assert f"and {len(status.failed) - 10} more failed" in as_text(status)


@pytest.fixture
def folder(plan, tmp_path) -> Path:
    (tmp_path / "config.yaml").symlink_to(ROOT / "config.yaml")
    return tmp_path


def test_the_command_takes_a_preset_or_a_folder(folder, plan, capsys):
    finish(find(plan, f"merge {TWIN} ties"))
    assert cli.main(["status", "--preset", "micro"]) == 0
    first = capsys.readouterr().out
    assert cli.main(["status", "--results", "results/micro"]) == 0
    assert capsys.readouterr().out == first
    assert first.startswith("results/micro: 1 of ")


def test_watching_prints_again_until_interrupted(folder, capsys, monkeypatch):
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    assert cli.main(["status", "--preset", "micro", "--watch", "5"]) == cli.INTERRUPTED
    assert waits == [5, 5]
    assert capsys.readouterr().out.count("results/micro: ") == 2


def test_the_paper_is_looked_at_in_less_than_two_seconds(plan, monkeypatch):
    paper = Plan(config.load(ROOT / "config.yaml"))
    jobs: list[PlannedJob] = list(planned_jobs(paper))
    for number, job in enumerate(jobs):
        if number % 2:
            finish(job)
        else:
            write(Path(job.log), "mergebench: no.\n")
    write(Path(paper.results, ".state/x/lease"), "")
    began = time.process_time()
    status = look(paper)
    assert time.process_time() - began < 2
    assert sum(status.total.values()) == len(jobs) > 1000


def test_looking_imports_neither_torch_nor_pandas():
    program = "import sys, mergebench.workflow.status.look; print('torch' in sys.modules, 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_job_of_an_edited_source_is_known_by_its_log_and_a_lease_of_its_stage(plan):
    """Its spec, and so its state folder, is not the one that the plan computes now."""
    ties, dare, tune = (
        find(plan, f"{title} {TWIN} {method}") for title, method in (("merge", "ties"), ("merge", "dare"), ("tune", "ties"))
    )
    for job, age in ((ties, 0), (dare, 500), (tune, 0)):
        write(Path(job.log), "[x] 1/3\n")
        os.utime(job.log, (time.time() - age,) * 2)
    descriptor = hold(Path(plan.results, ".state/merge-0123456789abcdef/lease"), "process 7 on n5")
    began = time.time() - 100
    os.utime(Path(plan.results, ".state/merge-0123456789abcdef/lease"), (began, began))
    status = look(plan)
    assert [(r.title, r.host) for r in status.running] == [(ties.title, "n5")]
    assert {f.title for f in status.failed} == {dare.title, tune.title}
    os.close(descriptor)
    assert look(plan).running == []
