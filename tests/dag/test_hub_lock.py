"""The lock of hub revisions in the workflow: written by the first fetch, honoured by the next, moved on by a command or by git."""

import json
import subprocess
import sys

import pytest
import yaml

from mergebench.tiny.shipped import WEIGHTS
from tests.dag.campaign import Campaign
from tests.hub_server import Hub

pytestmark = pytest.mark.dag

TARGET = "results/micro/models/remote/base/manifest.json"


def test_a_base_of_the_hub_is_fetched_once_and_again_when_the_lock_moves(tmp_path, monkeypatch):
    hub = Hub()
    for name, value in {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}.items():
        monkeypatch.setenv(name, value)
    files = {path.name: path.read_bytes() for path in (WEIGHTS / "tiny-llama-weak").iterdir()}
    first = hub.add("me/remote", files)
    campaign = Campaign.create(tmp_path / "campaign")
    raw = yaml.safe_load((campaign.folder / "config.yaml").read_text())
    raw["catalogue"] = {"bases": {"remote": {"size": "tiny", "parameters": 844928, "hub": "me/remote"}}}
    raw["presets"]["micro"] |= {"bases": ["remote"]}
    raw["presets"]["micro"]["training"]["grpo"] = None
    (campaign.folder / "config.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))

    def revision() -> str:
        return json.loads((campaign.folder / TARGET).read_text())["revision"]

    campaign.run("--", TARGET, warm=False)
    assert revision() == first
    lock = campaign.folder / "hub.lock.json"
    assert json.loads(lock.read_text()) == {"dataset": {}, "model": {"me/remote": first}}
    second = hub.add("me/remote", {**files, "generation_config.json": b"{}"})
    assert campaign.planned("--", TARGET) == {}

    command = [sys.executable, "-m", "mergebench", "hub", "update", "--all"]
    moved = subprocess.run(command, cwd=campaign.folder, capture_output=True, text=True, check=True, timeout=120).stdout
    assert f"{first[:12]} -> {second[:12]}" in moved
    said = campaign.run("--", TARGET, warm=False)
    assert f"is me/remote at {first[:12]}, and hub.lock.json names {second[:12]}. This run fetches it again." in said
    assert revision() == second
    assert campaign.planned("--", TARGET) == {}
    hub.close()
