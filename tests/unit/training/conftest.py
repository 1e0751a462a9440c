"""Fixtures: two-layer random bases made in the process."""

from tests.unit.training.pico import pico_base, pico_llama  # noqa: F401
