"""The whole DAG of the preset `micro` on the cluster, from fetching to tables, and what a second run does."""

import json
from collections import Counter

import pytest

from mergebench import config
from mergebench.workflow.plan import Plan
from tests.dag.campaign import ROOT, Campaign
from tests.slurm.campaign import BASE, ClusterCampaign
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm
LOCAL = ("admit", "fetch_base", "fetch_data", "fetch_training_data", "analyse", "report", "official", "all")
LOCAL_JUDGING = ("judge", "judge_surrogates", "settle_safety", "settle_safety_surrogates")
STAGES = ("decontaminate", "tokenise", "train", "vectors", "interference", "statistics", "tune", "merge", "evaluate")


@pytest.fixture(scope="module")
def whole(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> ClusterCampaign:
    slurm.heal()
    campaign = ClusterCampaign(Campaign.create(tmp_path_factory.mktemp("whole") / "campaign").folder)
    campaign.submit().finish(1200)
    return campaign


def test_every_job_but_the_local_ones_ran_on_the_cluster_once(whole):
    expected = Plan(config.load(ROOT / "config.yaml", preset="micro")).job_counts()
    jobs = whole.jobs()
    assert Counter(job.rule for job in jobs) == {rule: count for rule, count in expected.items() if rule not in (*LOCAL, *LOCAL_JUDGING)}
    assert {job.state for job in jobs} == {"COMPLETED"}
    assert {job.restarts for job in jobs} == {0}


def test_every_stage_was_worked_on_inside_its_job(whole):
    records = [json.loads(path.read_text()) for stage in STAGES for path in whole.results.glob(f"costs/{stage}/**/*.json")]
    assert {record["run"]["slurm_job_id"] for record in records} == {job.number for job in whole.jobs()}
    local = [json.loads(path.read_text()) for path in whole.results.glob("costs/settle/**/*.json")]
    assert {record["run"]["slurm_job_id"] for record in local} == {None}, "what needs no model is settled where the controller runs"


def test_the_tables_are_there(whole):
    assert (whole.results / "tables/headline.csv").is_file()
    assert [p for p in whole.results.rglob("*") if ".tmp-" in p.name] == []


def test_a_second_run_has_nothing_to_do(whole):
    assert "Nothing to be done" in whole.submit().finish()


def test_a_stale_method_runs_its_own_chain_again_and_nothing_else(whole):
    before, known = whole.tables(), {job.number for job in whole.jobs()}
    with (whole.folder / "mergebench/merging/methods/model_soup.py").open("a") as stream:
        stream.write("\nUNUSED = 1\n")
    whole.submit().finish()
    again = [job for job in whole.jobs() if job.number not in known]
    assert [job.what for job in again] == [
        f"rule_merge_wildcards_{BASE}_model_soup",
        f"rule_evaluate_general_wildcards_{BASE}_merged_model_soup",
    ]
    assert whole.tables() == before
