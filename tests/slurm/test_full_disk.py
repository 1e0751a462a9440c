"""A job whose output folder has no space left."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.campaign import BASE, ClusterCampaign
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm
MODEL = f"models/{BASE}/merged_ties"


@pytest.fixture
def small_disk(campaign: ClusterCampaign) -> Iterator[Path]:
    """The folder of a merged model on a file system of one megabyte, which is not enough for it."""
    folder = campaign.results / MODEL
    campaign.forget(MODEL)
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named_and_the_job_completes_when_there_is_space(
    cluster: Cluster, campaign: ClusterCampaign, finished: ClusterCampaign, small_disk: Path
):
    target = f"results/{campaign.preset}/{MODEL}/manifest.json"
    workflow = campaign.submit("--retries", "0", "--", target)
    assert workflow.wait(180) != 0
    (failed,) = campaign.jobs()
    log = campaign.log(f"merge/{BASE}/ties.json")
    assert failed.state == "FAILED"
    assert "No space left on device" in log
    assert "Traceback" not in log
    assert "No space left on device" in workflow.output
    assert [p for p in small_disk.rglob("*") if not p.is_dir()] == []

    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    campaign.submit("--", target).finish()
    made, expected = ({p.relative_to(c): p.read_bytes() for p in c.rglob("*.json")} for c in (small_disk, finished.results / MODEL))
    assert made[Path("manifest.json")] == expected[Path("manifest.json")]
