"""What exists, as data: bases, domains, datasets, benchmarks, surrogates and published values."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent


@cache
def load(name: str) -> dict[str, dict[str, Any]]:
    """The entries of ``catalogue/<name>.yaml`` in file order. Callers must not modify them."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), Loader=loader)


def bases() -> dict[str, dict[str, Any]]:
    """Base models by name."""
    return load("bases")


def domains() -> dict[str, dict[str, Any]]:
    """The five domains by name, in the paper's order."""
    return load("domains")


def benchmarks() -> dict[str, dict[str, Any]]:
    """Benchmarks and surrogates by name."""
    return load("benchmarks")


def datasets() -> dict[str, dict[str, Any]]:
    """Training sets and the data of the benchmarks by name."""
    return load("datasets")
