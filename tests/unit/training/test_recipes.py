"""Named recipes are settings that SFT takes."""

import json
from typing import get_args

import pytest

from mergebench.training.recipes import CHANGES, Recipe, under
from mergebench.training.settings import SftSettings
from mergebench.training.sharding import CONFIGURATIONS

PAPER = {"learning_rate": 5e-5, "max_length": 3072, "batch_size": 128, "epochs": 2, "packing": True, "warmup": 0.1, "log_every": 7}


def test_there_are_settings_for_every_name():
    assert set(CHANGES) == set(get_args(Recipe))


def test_the_paper_is_what_is_configured():
    assert under("paper", PAPER) == PAPER


def test_the_released_recipe_is_that_of_its_yaml():
    settings = SftSettings(**under("released", PAPER))
    assert (settings.max_length, settings.learning_rate, settings.batch_size, settings.batch_unit) == (2048, 2e-5, 160, "packs")
    assert (settings.epochs, settings.warmup, settings.weight_decay, settings.max_grad_norm) == (2, 0.1, 0, 1)
    assert settings.log_every == 7


@pytest.mark.parametrize(("name", "stage"), [("zero2", 2), ("zero3", 3)])
def test_the_configurations_of_deepspeed_leave_the_batch_to_the_settings(name, stage):
    values = json.loads((CONFIGURATIONS / f"{name}.json").read_text())
    assert values["zero_optimization"]["stage"] == stage
    batch = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    assert {values[key] for key in batch} == {"auto"}
    assert "optimizer" not in values, "DeepSpeed would compile one of its own"
