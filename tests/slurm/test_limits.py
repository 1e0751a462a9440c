"""Jobs that Slurm kills at their limits: the next attempt asks for more, and goes on where the last one stopped."""

import re

import pytest

from tests.slurm.campaign import BASE, ClusterCampaign
from tests.slurm.cluster import Cluster, scontrol

pytestmark = pytest.mark.slurm
TRAINED, SCORED, LARGE = f"train/{BASE}/multitask.json", f"evaluate/{BASE}/base/general.json", f"evaluate/{BASE}/merged_ties/general.json"
TOO_LITTLE = 300  # MB
EVALUATED_BASE, EVALUATED_TIES = (f"evaluate_general_wildcards_{BASE}_{model}" for model in ("base", "merged_ties"))


def test_time_limits_and_a_memory_limit(cluster: Cluster, campaign: ClusterCampaign, finished: ClusterCampaign):
    campaign.forget(f"models/{BASE}/multitask")
    campaign.forget_scores("multitask", "base", "merged_ties")
    with cluster.paused("gpu"):
        workflow = campaign.submit()
        workflow.until("three jobs wait", lambda: len(campaign.jobs()) == 3)
        asked = {word: campaign.jobs(word)[0] for word in ("train_multitask", EVALUATED_BASE, EVALUATED_TIES)}
        scontrol("update", f"JobId={asked[EVALUATED_TIES].number}", f"MinMemoryNode={TOO_LITTLE}")

    # A worker that hangs reaches its time limit wherever it is: stop two in the middle, and let their time be over. Slurm refuses an
    # end that is past, as `now` is when the second ends before it has read it.
    campaign.freeze(workflow, SCORED, "lease")
    checkpoints = campaign.freeze(workflow, TRAINED, "checkpoints/checkpoint-*/complete.json")
    for word in ("train_multitask", EVALUATED_BASE):
        scontrol("update", f"JobId={asked[word].number}", "EndTime=now+5")
    workflow.finish()

    for word in ("train_multitask", EVALUATED_BASE):
        killed, second = campaign.jobs(word)
        assert (killed.state, second.state) == ("TIMEOUT", "COMPLETED")
        assert (second.minutes, second.memory_mb) == (2 * asked[word].minutes, asked[word].memory_mb)
    # What was saved and scored when the workers hung is not made again; they may have got further when Slurm woke them to end.
    saved = max(int(path.parent.name.partition("-")[2]) for path in checkpoints)
    assert printed(r"resuming from checkpoint-(\d+)", campaign.log(TRAINED)) >= saved

    killed, second = campaign.jobs(EVALUATED_TIES)
    assert (killed.state, second.state) == ("FAILED", "COMPLETED")
    assert "exceeded memory limit" in killed.log
    assert (second.minutes, second.memory_mb) == (asked[EVALUATED_TIES].minutes, 2 * asked[EVALUATED_TIES].memory_mb)
    assert campaign.tables() == finished.tables()
    assert campaign.planned() == {}


def printed(pattern: str, log: str) -> int:
    """The number that a log names."""
    found = re.search(pattern, log)
    assert found is not None, log
    return int(found[1])
