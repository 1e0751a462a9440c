"""One Slurm for the whole session, one finished campaign, and a free cluster for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.campaign import ClusterCampaign, Workflow
from tests.slurm.cluster import CannotStartError, Cluster


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    try:
        cluster = Cluster.start()
    except CannotStartError as error:
        pytest.skip(f"no Slurm can be started here, so that nothing was tested: {error}")
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def cluster(slurm: Cluster) -> Iterator[Cluster]:
    """The cluster, idle and whole before the test and after it."""
    slurm.heal()
    yield slurm
    Workflow.end_all()
    slurm.heal()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> ClusterCampaign:
    """The undisturbed campaign: the preset `faults`, run on this machine without Slurm."""
    campaign = ClusterCampaign.with_faults_preset(tmp_path_factory.mktemp("faults") / "finished")
    campaign.run()
    return campaign


@pytest.fixture
def campaign(cluster: Cluster, finished: ClusterCampaign, tmp_path: Path) -> ClusterCampaign:
    """A copy of the undisturbed campaign, for a test to delete results of and to make them again on the cluster."""
    return finished.fork(tmp_path / "campaign")
