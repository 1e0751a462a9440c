"""Jobs that others displace, and jobs that Slurm has forgotten when the workflow asks."""

import re
import signal
import subprocess
import time
from collections import Counter

import pytest

from tests.slurm.campaign import BASE, ClusterCampaign
from tests.slurm.cluster import NODES, Cluster, scontrol

pytestmark = pytest.mark.slurm
EVALUATED_BASE, EVALUATED_TIES = (f"evaluate_general_wildcards_{BASE}_{model}" for model in ("base", "merged_ties"))


def test_preemption_with_requeue_and_with_cancellation(cluster: Cluster, campaign: ClusterCampaign, finished: ClusterCampaign):
    campaign.forget_scores("base", "merged_ties")
    campaign.use_partition("spare")
    with cluster.paused("spare"):
        workflow = campaign.submit()
        workflow.until("two jobs wait", lambda: len(campaign.jobs()) == 2)
        requeued, cancelled = campaign.jobs(EVALUATED_BASE)[0], campaign.jobs(EVALUATED_TIES)[0]
        scontrol("update", f"JobId={cancelled.number}", "Partition=scavenge")
    workflow.until("both work", lambda: len(campaign.workers()) == 2)
    urgent = ["sbatch", "--partition=urgent", "--exclusive", f"--nodes={len(NODES)}", "--output=/dev/null", "--wrap=true"]
    subprocess.run(urgent, check=True, capture_output=True)
    workflow.finish()

    (again,) = campaign.jobs(EVALUATED_BASE)
    assert (again.number, again.state, again.restarts) == (requeued.number, "COMPLETED", 1)
    first, second = campaign.jobs(EVALUATED_TIES)
    assert (first.number, first.state, second.state) == (cancelled.number, "PREEMPTED", "COMPLETED")
    assert (second.minutes, second.memory_mb) == (first.minutes, first.memory_mb)
    assert campaign.tables() == finished.tables()
    assert campaign.planned() == {}


def test_jobs_that_slurm_forgets_while_the_controller_sleeps(cluster: Cluster, campaign: ClusterCampaign, finished: ClusterCampaign):
    campaign.forget_scores("base", "merged_ties")
    workflow = campaign.submit()
    workflow.until("both work", lambda: len(campaign.workers()) == 2)
    (lost,) = campaign.jobs(EVALUATED_BASE)
    workflow.process.send_signal(signal.SIGSTOP)
    subprocess.run(["scancel", lost.number], check=True)
    cluster.remember(2)
    deadline = time.monotonic() + 240
    while campaign.jobs():
        assert time.monotonic() < deadline, "slurmctld does not forget the jobs"
        time.sleep(1)
    workflow.process.send_signal(signal.SIGCONT)
    output = workflow.finish()

    assert "Slurm no longer knows it, and outputs are missing" in output
    submitted = re.findall(r"submitted with SLURM jobid .*/slurm/rule_(evaluate_general|settle_code)/", output)
    assert Counter(submitted) == {"evaluate_general": 3, "settle_code": 2}
    assert campaign.tables() == finished.tables()
    assert campaign.planned() == {}
