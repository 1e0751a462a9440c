"""The terminal shows what starts and ends, how far the run is, and what else is running."""

import io
import logging

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from mergebench.workflow import progress


@pytest.fixture
def logger():
    made = logging.Logger("workflow under test")
    made.addHandler(logging.StreamHandler(io.StringIO()))
    progress.attach(made)
    return made


def start(logger, job, rule, **wildcards):
    logger.info("rule ...", extra={"event": LogEvent.JOB_INFO, "jobid": job, "rule_name": rule, "wildcards": wildcards})


def end(logger, job, done, total):
    logger.info("Finished", extra={"event": LogEvent.JOB_FINISHED, "job_id": job})
    logger.info("steps", extra={"event": LogEvent.PROGRESS, "done": done, "total": total})


def test_starts_and_ends_are_told_with_what_else_runs(logger, capsys):
    start(logger, 1, "tune", base="tiny-llama-strong", method="ties")
    start(logger, 2, "vectors", base="tiny-llama-strong", domain="math")
    end(logger, 1, 1, 40)
    start(logger, 3, "merge", base="tiny-llama-strong", method="ties")
    lines = capsys.readouterr().err.splitlines()
    assert "start tune tiny-llama-strong ties" in lines[0]
    assert lines[1].endswith("start vectors tiny-llama-strong math   (running: tune tiny-llama-strong ties)")
    assert "done in 0 s: tune tiny-llama-strong ties" in lines[2]
    assert lines[3].startswith("[1/40, ")


def test_the_rest_is_estimated_once_there_is_something_to_go_by(logger, capsys):
    for job in range(1, 11):
        start(logger, job, "merge")
        end(logger, job, job, 40)
    lines = capsys.readouterr().err.splitlines()
    assert "left]" not in lines[0]
    assert "left]" in lines[-1]


def test_a_failed_job_is_no_longer_running(logger, capsys):
    start(logger, 1, "merge")
    logger.error("failed", extra={"event": LogEvent.JOB_ERROR, "jobid": 1})
    start(logger, 2, "tune")
    assert "running" not in capsys.readouterr().err.splitlines()[-1]


def test_snakemakes_own_lines_about_jobs_leave_the_terminal_and_errors_stay(logger):
    terminal = logger.handlers[0]
    start(logger, 1, "merge")
    logger.error("Error in rule merge", extra={"event": LogEvent.JOB_ERROR, "jobid": 1})
    assert terminal.stream.getvalue().strip() == "Error in rule merge"


def test_attaching_twice_tells_once(logger, capsys):
    progress.attach(logger)
    start(logger, 1, "merge")
    assert len(capsys.readouterr().err.splitlines()) == 1
