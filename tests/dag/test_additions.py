"""A base from a folder, a domain of one's own and an imported specialist, each one entry of config.yaml, run by Snakemake."""

import json
import shutil

import pytest
import yaml
from safetensors.torch import load_file, save_file

from mergebench.tiny.shipped import WEIGHTS
from tests.dag.campaign import Campaign

pytestmark = pytest.mark.dag


@pytest.fixture(scope="module")
def campaign(tmp_path_factory) -> Campaign:
    """The micro preset with a base, a domain and the safety specialist from this machine's folders."""
    folder = tmp_path_factory.mktemp("additions")
    campaign = Campaign.create(folder / "campaign")
    shutil.copytree(WEIGHTS / "tiny-llama-weak", folder / "twin")
    specialist = shutil.copytree(folder / "twin", folder / "mine_safety")
    moved = {name: tensor * 1.01 for name, tensor in load_file(specialist / "model.safetensors").items()}
    save_file(moved, specialist / "model.safetensors", metadata={"format": "pt"})
    rows = [{"question": f"What helps against ailment {n}?", "answer": f"Remedy {n}."} for n in range(40)]
    (folder / "medicine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw = yaml.safe_load((campaign.folder / "config.yaml").read_text())
    raw["catalogue"] = {
        "bases": {"mine": {"size": "tiny", "parameters": 844928, "path": str(folder / "twin")}},
        "domains": {
            "medicine": {
                "training": {"file": "medicine.jsonl", "prompt": "question", "response": "answer"},
                "in_domain": ["pubmedqa"],
                "surrogates": ["squadv2"],
            }
        },
    }
    micro = raw["presets"]["micro"]
    micro["bases"] = ["mine"]
    micro["domains"] = ["math", "safety", "medicine"]
    micro["data"] |= {"sources": {"train_medicine": "local"}, "root": str(folder)}
    micro["training"]["grpo"] = None
    micro["training"]["specialists"] = [str(folder / "mine_safety")]
    micro["evaluation"]["jobs"] = "domain"
    micro["evaluation"]["in_domain"].append("pubmedqa")
    micro["evaluation"]["surrogates"].append("squadv2")
    (campaign.folder / "config.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    return campaign


def test_the_plan_has_the_new_names(campaign):
    planned = campaign.planned()
    assert (planned["fetch_base"], planned["import_specialist"], planned["train_specialist"]) == (1, 1, 2)
    assert (planned["fetch_training_data"], planned["tokenise"], planned["vectors"], planned["statistics"]) == (3, 3, 3, 9)
    assert "train_grpo" not in planned


@pytest.mark.long
def test_they_are_trained_imported_merged_and_scored(campaign):
    merged = "results/micro/models/mine/merged_model_soup/manifest.json"
    score = "results/micro/scores/mine/specialist_medicine/pubmedqa.json"
    campaign.run("--", merged, score)
    manifests = {m: json.loads((campaign.results / f"models/mine/{m}/manifest.json").read_text()) for m in ("base", "specialist_safety")}
    assert manifests["base"]["source"] == "local"
    assert manifests["specialist_safety"]["algorithm"] == "import"
    assert manifests["specialist_safety"]["relative_norm"] == pytest.approx(0.01, rel=0.05)
    assert json.loads((campaign.folder / score).read_text())["domain"] == "medicine"
    assert campaign.planned("--", merged, score) == {}
