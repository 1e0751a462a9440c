"""Training in two tasks with a GPU each, on one node and on two."""

import json

import pytest

from mergebench.artifacts import damaged
from tests.slurm.campaign import BASE, ClusterCampaign
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm
NODES = {"specialist_coding": 1, "multitask": 2}
RULES = {"specialist_coding": "train_specialist", "multitask": "train_multitask"}
ROUNDING = 1e-3  # two tasks add the same gradients in another order


def test_a_training_job_of_two_tasks_on_one_node_and_on_two(cluster: Cluster, campaign: ClusterCampaign, finished: ClusterCampaign):
    campaign.forget(*(f"models/{BASE}/{model}" for model in NODES))
    asked = [
        f"{rule}:{resource}={value}"
        for model, rule in RULES.items()
        for resource, value in {"tasks": 2, "gpu": 2, "nodes": NODES[model], "mpi": "srun"}.items()
    ]
    targets = [f"results/{campaign.preset}/models/{BASE}/{model}/manifest.json" for model in NODES]
    campaign.submit("--set-resources", *asked, "--", *targets).finish()

    for model, nodes in NODES.items():
        (job,) = campaign.jobs(RULES[model])
        assert (job.state, job.facts["NumNodes"], job.facts["NumTasks"]) == ("COMPLETED", str(nodes), "2")
        folder, alone = (c.results / f"models/{BASE}/{model}" for c in (campaign, finished))
        assert damaged(folder / "manifest.json", content=True) is None
        losses, expected = ([json.loads(line) for line in (f / "losses.jsonl").read_text().splitlines()] for f in (folder, alone))
        assert [entry["step"] for entry in losses] == [entry["step"] for entry in expected]
        assert [entry["loss"] for entry in losses] == pytest.approx([entry["loss"] for entry in expected], abs=ROUNDING)
        run = json.loads((campaign.results / f"costs/train/{BASE}/{model}.json").read_text())["run"]
        assert (run["tasks"], run["gpus_visible"], len(run["hosts"])) == (2, 2, nodes)
