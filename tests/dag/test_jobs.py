"""`mergebench.workflow.jobs` names the very files that the rules name, and the very state folders that jobs use."""

import json
import re
import shlex

import pytest

from mergebench import config
from mergebench.artifacts import sha256_json
from mergebench.workflow.jobs import planned_jobs
from mergebench.workflow.plan import Plan
from tests.dag.campaign import Campaign

pytestmark = pytest.mark.dag

# Outputs that are published together with those that are looked for.
WRITTEN_TOGETHER = {"rows.jsonl", "examples.jsonl", "support", "train.jsonl", "calibration.jsonl", "losses.jsonl"}


def blocks(printed: str) -> list[dict[str, str]]:
    """The jobs of a dry run with ``-p``, each as its fields, `rule` and `command` among them."""
    found = []
    for text in re.split(r"\n(?=(?:local)?rule \w+:\n)", printed)[1:]:
        fields = dict(re.findall(r"^    (\w+): (.*)$", text, re.MULTILINE))
        command = next((line for line in text.splitlines() if "mergebench run " in line), "")
        found.append({**fields, "rule": re.match(r"(?:local)?rule (\w+):", text)[1], "command": command})  # type: ignore[index]
    return found


def test_files_and_state_folders_are_those_of_the_rules(tmp_path, monkeypatch):
    campaign = Campaign.create(tmp_path / "campaign")
    path = campaign.folder / "config.yaml"
    head, micro = path.read_text().split("\n  micro: &micro\n", 1)
    path.write_text(f"{head}\n  micro: &micro\n    storage: {{keep_merged: false}}\n    tuning: {{seeds: 2}}\n{micro}")
    printed = {block["log"]: block for block in blocks(campaign.run("--dry-run", "-p", warm=False)) if block["command"]}
    monkeypatch.chdir(campaign.folder)
    plan = Plan(config.load(path, preset="micro"))
    planned = {job.log: job for job in planned_jobs(plan)}
    assert set(planned) == set(printed)
    assert {job.stage for job in planned.values()} >= {"drop", "train", "evaluate", "statistics", "analyse"}
    for log, job in planned.items():
        block = printed[log]
        outputs = set(block["output"].split(", "))
        assert block["rule"] == job.rule
        assert set(job.outputs) <= outputs
        others = {name.rpartition("/")[2] for name in outputs - set(job.outputs)}
        assert {name for name in others if not name.endswith((".items.parquet", ".responses.parquet"))} <= WRITTEN_TOGETHER
        words = shlex.split(block["command"].partition(" 2> ")[0])
        spec = json.loads(words[words.index("--spec") + 1])
        stage = words[words.index("run") + 1]
        assert f"{words[words.index('--state') + 1]}/{stage}-{sha256_json(spec)[:16]}" == job.state(plan)
        wildcards = dict(pair.split("=") for pair in block.get("wildcards", "").split(", ") if pair)
        assert list(wildcards.values()) == job.names
