"""A source file that is edited while the workflow runs changes nothing in that run, and is seen by the next."""

import json
import time
from pathlib import Path

import pytest

from mergebench.fingerprint import fingerprint
from tests.dag.campaign import Campaign

BASE = "tiny-llama-strong"
TARGET = f"results/micro/vectors/{BASE}/safety/manifest.json"
STAGE = "mergebench/vectors/run.py"

pytestmark = [pytest.mark.dag, pytest.mark.long]


def edit_when(ready: Path, path: Path, process) -> None:
    """Make `path` fail on import as soon as `ready` is there."""
    deadline = time.monotonic() + 300
    while not ready.exists():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    path.write_text(path.read_text() + "\nraise RuntimeError('edited')\n")


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_a_stage_edited_during_a_run_is_run_as_it_was_and_is_stale_afterwards(tmp_path, warm):
    campaign = Campaign.create(tmp_path / "campaign")
    assert list(campaign.planned("--", TARGET)) == ["fetch_base", "fetch_training_data", "tokenise", "train_specialist", "vectors"]
    before = fingerprint("mergebench.vectors.run")
    process = campaign.start("--", TARGET, warm=warm)
    edit_when(campaign.results / f"models/{BASE}/base/manifest.json", campaign.folder / STAGE, process)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output[-3000:]
    manifest = json.loads((campaign.folder / TARGET).read_text())
    assert manifest["spec"]["code"] == before, "the record names the code that ran"
    assert campaign.planned("--", TARGET) == {"vectors": 1}
    copies = list((campaign.folder / ".snakemake/mergebench").glob("source-*"))
    assert len(copies) == 1
    assert "edited" not in (copies[0] / STAGE).read_text()
