"""Presets: known methods, valid parameters, and explicit ones over them."""

from __future__ import annotations

import pytest

from mergebench.errors import MergebenchError
from mergebench.merging.listing import listing
from mergebench.merging.presets import PRESETS, parameters, settings
from mergebench.merging.registry import get, methods

NAMED = [(preset, method) for preset, found in PRESETS.items() for method in found.methods or {}]


@pytest.mark.parametrize(("preset", "method"), NAMED)
def test_every_parameter_of_a_preset_exists(preset: str, method: str) -> None:
    get(method).validate(parameters(preset, method))


def test_the_paper_is_every_method_s_default() -> None:
    for method in methods():
        assert parameters("paper", method) == {}
        assert (settings("paper", method).scope, settings("paper", method).arithmetic) == ("all", "float32")


def test_explicit_parameters_come_over_the_preset_s() -> None:
    assert parameters("fusionbench", "ties", {"density": 0.1})["density"] == 0.1
    assert parameters("fusionbench", "ties")["density"] == 0.2


def test_the_released_code_covers_the_paper_s_methods() -> None:
    assert len(PRESETS["released"].methods or {}) == 9


@pytest.mark.parametrize(
    ("preset", "method", "message"),
    [
        ("relesed", "ties", r"no preset 'relesed'; .*Did you mean 'released'\?"),
        ("mergekit", "fisher", "preset mergekit has no fisher: .* has model_soup, task_arithmetic, ties, dare"),
    ],
)
def test_what_a_preset_does_not_have_is_named(preset: str, method: str, message: str) -> None:
    with pytest.raises(MergebenchError, match=message):
        settings(preset, method)


def test_the_listing_shows_them() -> None:
    text = listing()
    for name, preset in PRESETS.items():
        assert f"preset {name}: {preset.title}" in text
