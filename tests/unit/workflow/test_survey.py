"""What is taken from Snakemake's DAG."""

import logging
import os
from types import SimpleNamespace

import pytest
from snakemake.iocontainers import Namedlist
from snakemake_interface_logger_plugins.common import LogEvent

from mergebench.workflow import survey
from mergebench.workflow.survey import Planned, attach, jobs, read


class Job(SimpleNamespace):
    __hash__ = object.__hash__
    __eq__ = object.__eq__


def job(rule: str, wildcards: dict[str, str], cost: str | None = None, **resources: object) -> Job:
    output = Namedlist(toclone=["x", *([cost] if cost else [])])
    if cost:
        output._add_name("cost")
        output._set_name("cost", 1)
    return Job(rule=SimpleNamespace(name=rule), wildcards_dict=wildcards, resources=resources, output=output)


@pytest.fixture
def dag():
    first, second = job("train", {"base": "b"}, cost="c.json", gpu=4), job("all", {}, gpu="tbd")
    return SimpleNamespace(jobs=[first, second], dependencies={first: {}, second: {first: {"x"}}}, needrun=lambda j: j is second)


def test_jobs_carry_state_needs_gpus_and_cost_record(dag):
    assert jobs(dag) == [Planned("train", {"base": "b"}, False, 4, [], "c.json"), Planned("all", {}, True, 0, [0], None)]


@pytest.mark.parametrize(("event", "message"), [(LogEvent.RUN_INFO, "Job stats"), (None, "Nothing to be done (all ...)")])
def test_a_survey_is_written_when_the_plan_stands_and_ends_the_process(dag, tmp_path, monkeypatch, event, message):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    logger = logging.Logger("surveyed")
    attach(logger, SimpleNamespace(dag=dag), {survey.VARIABLE: str(tmp_path / "survey.json")})
    logger.info("Building DAG of jobs...")
    assert ended == []
    logger.info(message, extra={"event": event})
    assert ended == [0]
    assert read(tmp_path / "survey.json") == jobs(dag)


def test_other_runs_are_not_surveyed(dag):
    logger = logging.Logger("plain")
    attach(logger, SimpleNamespace(dag=dag), {})
    assert logger.handlers == []
