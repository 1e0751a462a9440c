"""Snakemake plans the paper's campaign from nothing: the very jobs that the plan counts, and nothing is fetched."""

import pytest

from tests.dag.campaign import Campaign
from tests.unit.workflow.test_plan import PAPER

pytestmark = [pytest.mark.dag, pytest.mark.xdist_group("profiles")]


def test_the_dry_run_of_the_papers_preset_has_the_papers_jobs(tmp_path):
    campaign = Campaign.create(tmp_path / "paper", preset="paper")
    assert campaign.planned() == PAPER
    assert not campaign.results.exists()
