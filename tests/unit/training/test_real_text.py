"""Tiny twins learn from real text: GSM8K, parallel prose and instructions lower the loss on rows that were held out."""

import os
import shutil
from pathlib import Path

import pytest

from mergebench import catalogue
from mergebench.artifacts import Job, execute
from mergebench.data.sources import local
from mergebench.training import run as stage
from mergebench.training.shards import run as tokenise
from tests.unit.training.pico import training_job, write_rows

pytestmark = pytest.mark.real

TWINS = {
    "instruction": "tiny-gemma-2-weak",
    "math": "tiny-llama-strong",
    "multilingual": "tiny-llama-strong",
    "coding": "tiny-gemma-2-weak",
}
LENGTH = 192
SETTINGS = {"steps": 25, "batch_size": 8, "learning_rate": 1e-3, "max_length": LENGTH, "packing": True, "warmup": 0.1, "log_every": 1}


def loss_on(weights, rows):
    """Mean loss of the response tokens."""
    import torch

    from mergebench.training.examples import IGNORED, collate, encode
    from mergebench.training.models import load_model, load_tokenizer

    model, tokenizer = load_model(weights).eval(), load_tokenizer(weights)
    total = count = 0.0
    for example in encode(tokenizer, rows, LENGTH):
        batch = collate([example], 0)
        labels = batch.pop("labels")[0, 1:]
        with torch.no_grad():
            logits = model(**batch).logits[0, :-1]
        total += torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum").item()
        count += int((labels != IGNORED).sum())
    return total / count


@pytest.mark.parametrize("domain", TWINS)
def test_training_on_real_text_lowers_the_loss_on_held_out_rows(domain, tmp_path):
    root = os.environ.get("MERGEBENCH_REAL_DATA", "")
    if not Path(root).is_dir() or not root:
        pytest.skip("MERGEBENCH_REAL_DATA does not name a folder with the benchmarks' real files")
    name = f"train_{domain}"
    rows = [row for row in local.load(name, catalogue.datasets()[name], Path(root), seed=0).rows if len(row["prompt"]) < LENGTH]
    held_out, used = rows[:40], rows[40:440]
    assert not {row["prompt"] for row in held_out} & {row["prompt"] for row in used}
    base = shutil.copytree(Path(stage.__file__).parents[1] / "tiny/weights" / TWINS[domain], tmp_path / "base/weights")
    data = write_rows(tmp_path / name, used)

    tokens = tmp_path / "tokens" / name
    outputs = {"shards": tokens / "shards", "card": tokens / "card.json", "manifest": tokens / "manifest.json"}
    spec = {"training_set": name, "tokenizer": TWINS[domain], "template": "chat", "max_length": LENGTH, "batch_size": 8}
    execute(tokenise, Job("tokenise", spec, {"data": data, "weights": base}, outputs, tmp_path / "tokens-state"))

    spec = {
        "base": TWINS[domain],
        "model": f"specialist_{domain}",
        "algorithm": "sft",
        "domains": [domain],
        "settings": SETTINGS,
        "seed": 0,
    }
    job = training_job(spec, tmp_path / "out", tmp_path / "state", base=base, tokens=[tokens / "manifest.json"])
    execute(stage, job)
    before, after = loss_on(base, held_out), loss_on(tmp_path / "out/weights", held_out)
    print(f"{domain}: held-out loss {before:.3f} before, {after:.3f} after")
    assert after < before - 0.2
