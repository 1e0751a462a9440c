"""`mergebench plan train`: steps, tokens, GPUs, memory and disk of every model, from the settings alone."""

import copy
import json
from typing import Any

import pytest
import yaml

from mergebench import config
from mergebench.cli import main
from mergebench.workflow.plan import Plan
from mergebench.workflow.resources import Site
from mergebench.workflow.training_forecast import forecast, render
from tests.unit.workflow.test_plan import PAPER, ROOT

RAW = yaml.safe_load((ROOT / "config.yaml").read_text())


def plan(preset: str = "paper", **training: Any) -> Plan:
    raw = {**copy.deepcopy(RAW), "preset": preset}
    raw["presets"][preset]["training"] |= training
    return Plan(config.parse(raw))


def model(record: dict[str, Any], base: str, name: str) -> dict[str, Any]:
    return next(m for m in record["models"] if (m["base"], m["model"]) == (base, name))


def test_every_trained_model_of_the_paper_has_a_row():
    record = forecast(plan(), Site())
    assert len(record["models"]) == PAPER["train_specialist"] + PAPER["train_grpo"] + PAPER["train_multitask"]
    assert all(m["fits"] for m in record["models"])
    assert record["warnings"] == []
    assert record["gpu_hours"] == pytest.approx(sum(m["hours"] * m["gpus"] for m in record["models"]))


def test_steps_are_rows_times_epochs_by_the_batch():
    record = forecast(plan(), Site())
    assert model(record, "gemma-2-2b", "specialist_multilingual")["steps"] == round(2 * 5_940 / 128)
    assert model(record, "gemma-2-9b", "specialist_math")["steps"] == 500
    alone = sum(model(record, "gemma-2-2b", f"specialist_{d}")["tokens"] for d in plan().domains)
    assert model(record, "gemma-2-2b", "multitask")["tokens"] == pytest.approx(alone, rel=0.01)


def test_packs_as_the_unit_of_a_batch_make_fewer_steps():
    """At 160 packed rows of 2048 tokens Aya has few steps (the other reading of the paper's batch size)."""
    released = forecast(plan(recipe="released"), Site())
    assert model(released, "llama-3.1-8b", "specialist_multilingual")["steps"] < 20


def test_imports_cost_no_gpu_hours():
    record = forecast(plan(specialists="hub", multitask=None), Site())
    assert {m["by"] for m in record["models"]} == {"import"}
    assert record["gpu_hours"] == 0


def test_what_no_gpu_holds_is_said_with_the_settings_that_change_it():
    settings = copy.deepcopy(RAW["presets"]["paper"]["training"]["supervised"])
    settings["large"]["sharding"] = "none"
    said = forecast(plan(supervised=settings), Site())["warnings"]
    assert any(s.startswith("llama-3.1-8b multitask needs about") and "change sharding" in s for s in said)
    assert not any(s.startswith("gemma-2-2b ") for s in said)


def test_tokens_are_counted_where_the_data_card_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = plan("micro")
    estimated = model(forecast(made, Site()), "tiny-llama-strong", "specialist_safety")["tokens"]
    folder = tmp_path / made.training_tokens("tiny-llama-strong", "specialist_safety")[0]
    folder.parent.mkdir(parents=True)
    folder.with_name("card.json").write_text(json.dumps({"tokens": 6_400, "rows": {"in": 70, "out": 64}}))
    record = forecast(made, Site())
    counted = model(record, "tiny-llama-strong", "specialist_safety")
    assert counted["tokens"] == counted["rows"] * 100 != estimated
    assert "tokens counted, not estimated, for train_safety" in render(record)


def test_the_command_prints_a_line_per_model_and_json(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert main(["plan", "train", "--preset", "micro"]) == 0
    text = capsys.readouterr().out
    assert [line.split()[1] for line in text.splitlines()[1:5]] == ["sft_math", "specialist_safety", "specialist_math", "multitask"]
    assert "assumed:" in text
    assert main(["plan", "train", "--preset", "micro", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["models"]) == 4
