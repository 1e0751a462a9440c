"""The `snakemake` that controls a campaign: two of them, one interrupted, one killed."""

import signal

import pytest

from tests.slurm.campaign import ClusterCampaign
from tests.slurm.cluster import Cluster, squeue

pytestmark = pytest.mark.slurm


def test_two_controllers_an_interrupted_one_and_a_killed_one(cluster: Cluster, campaign: ClusterCampaign, finished: ClusterCampaign):
    campaign.forget_scores("base", "merged_ties")

    # A second workflow in the same folder is refused, and the first goes on.
    workflow = campaign.submit()
    campaign.freeze_all(workflow, 2)
    second = campaign.submit()
    assert second.wait(60) != 0
    assert f"process {workflow.process.pid} on" in second.output
    assert "is running preset faults in this folder" in second.output
    assert len(campaign.jobs(state="RUNNING")) == 2

    # Ctrl-C cancels the jobs that it has submitted.
    workflow.process.send_signal(signal.SIGINT)
    assert workflow.wait(60) != 0
    cluster.until("no job is left", lambda: squeue() == [], 30)
    assert {job.state for job in campaign.jobs()} == {"CANCELLED"}

    # kill -9 leaves its jobs running; those of the fresh start let them finish and use what they have made.
    workflow = campaign.submit()
    workers = campaign.freeze_all(workflow, 2)
    orphans = campaign.jobs(state="RUNNING")
    workflow.process.send_signal(signal.SIGKILL)
    workflow.wait(10)
    assert [job.number for job in campaign.jobs(state="RUNNING")] == [job.number for job in orphans]
    fresh = campaign.submit()
    fresh.until("its jobs run as well", lambda: len(campaign.jobs(state="RUNNING")) == 4)
    for worker in workers:
        worker.resume()
    fresh.finish()
    assert len(campaign.jobs("evaluate_general", state="COMPLETED")) == 4
    assert len(campaign.jobs("settle_code", state="COMPLETED")) == 2
    assert campaign.tables() == finished.tables()
    assert campaign.planned() == {}


def test_a_controller_that_is_told_to_end_cancels_its_jobs(cluster: Cluster, campaign: ClusterCampaign):
    campaign.forget_scores("base")
    workflow = campaign.submit()
    workflow.until("a job runs", lambda: campaign.jobs(state="RUNNING"))
    workflow.process.send_signal(signal.SIGTERM)
    assert workflow.wait(60) != 0
    cluster.until("no job is left", lambda: squeue() == [], 30)
    assert [job.state for job in campaign.jobs()] == ["CANCELLED"]
