"""One run on which everything falls: cancelled jobs, a lost node, a controller that restarts, and edits of the code meanwhile."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.slurm.campaign import BASE, ClusterCampaign, SlurmJob
from tests.slurm.cluster import Cluster, scontrol

pytestmark = pytest.mark.slurm
AWAY_SECONDS = 10
EVALUATED_BASE, EVALUATED_MULTITASK = (f"evaluate_general_wildcards_{BASE}_{model}" for model in ("base", "multitask"))


def test_cancelled_jobs_a_lost_node_and_a_restarted_controller(cluster: Cluster, campaign: ClusterCampaign, finished: ClusterCampaign):
    campaign.forget(f"tuning/{BASE}/ties", f"tuning/{BASE}/task_arithmetic")
    campaign.forget_scores("base", "multitask")
    with cluster.paused("gpu"):
        workflow = campaign.submit()
        workflow.until("four jobs wait", lambda: len(campaign.jobs(state="PENDING")) == 4)
        edit(campaign)

    base, multitask = (f"evaluate/{BASE}/{model}/general.json" for model in ("base", "multitask"))
    workflow.until("two evaluations work", lambda: {base, multitask} <= campaign.workers().keys())

    # A user cancels one job by its number; another process cancels the jobs of a node by the name of the run.
    (by_number,), (by_name,) = campaign.jobs(EVALUATED_BASE), campaign.jobs(EVALUATED_MULTITASK)
    subprocess.run(["scancel", by_number.number], check=True)
    subprocess.run(["scancel", f"--name={by_name.facts['JobName']}", f"--nodelist={by_name.node}"], check=True)

    # A node is set down under the second attempt of one.
    def second_attempts() -> list[SlurmJob]:
        return [job for word in (EVALUATED_BASE, EVALUATED_MULTITASK) for job in campaign.jobs(word)[1:] if job.state == "RUNNING"]

    lost = workflow.until("a second attempt runs", second_attempts)[0]
    scontrol("update", f"NodeName={lost.node}", "State=DOWN", "Reason=test")
    workflow.until("its job runs again", lambda: any(j.number == lost.number and j.restarts == 1 for j in campaign.jobs(state="RUNNING")))

    # The controller of the cluster is away for a while.
    cluster.stop_controller()
    workflow.until("the workflow sees it", lambda: "Slurm has not answered" in workflow.output)
    time.sleep(AWAY_SECONDS)
    cluster.start_controller()
    workflow.finish()

    for word in (EVALUATED_BASE, EVALUATED_MULTITASK):
        cancelled, *cut_off, completed = campaign.jobs(word)
        assert (cancelled.state, completed.state) == ("CANCELLED", "COMPLETED")
        # A job that begins its step just then fails, because srun asks the controller for it.
        assert [job.number for job in cut_off if "Unable to contact slurm controller" not in job.log] == []
    assert "Slurm answers again" in workflow.output
    assert campaign.tables() == finished.tables()
    # What was edited during the run is stale now: one search by its code, one by its grid, all merges by their rule.
    assert campaign.planned() == {
        **{"tune": 2, "merge": 3, "evaluate_general": 3, "settle_code": 3},
        **dict.fromkeys(("judge", "settle_safety", "analyse", "report", "official", "all"), 1),
    }


def edit(campaign: ClusterCampaign) -> None:
    """Break the code of one method and the rule of the merges, and change the grid of another method.

    A job that read one of them would fail or give other numbers.
    """
    with (campaign.folder / "mergebench/merging/methods/ties.py").open("a") as stream:
        stream.write("\nraise RuntimeError('this was written while the workflow ran')\n")
    replace(campaign.folder / "rules/merge.smk", "mergebench run merge", "mergebench run nothing")
    replace(campaign.folder / "config.yaml", "scale: [0.35, 0.7]", "scale: [0.9]")


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
