"""What exists, as data: bases, domains, datasets, benchmarks, surrogates and published values.

The entries are those of the YAML files of this folder, and those that a configuration adds under `catalogue` (`extend`).
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent
Entries = dict[str, dict[str, Any]]
_added: dict[str, Entries] = {}


@cache
def shipped(name: str) -> Entries:
    """The entries of ``catalogue/<name>.yaml`` in file order. Callers must not modify them."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entries: Entries = yaml.load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), Loader=loader)
    return entries


@cache
def load(name: str) -> Entries:
    """The shipped entries in file order, then the added ones; an added entry of a shipped name changes the keys that it has."""
    entries = dict(shipped(name))
    for key, entry in _added.get(name, {}).items():
        entries[key] = {**entries.get(key, {}), **entry}
    return entries


def extend(added: Mapping[str, Entries]) -> None:
    """Add entries, by the name of their file; what an earlier call has added goes."""
    _added.clear()
    _added.update(json.loads(json.dumps(added)))
    load.cache_clear()


def added(name: str) -> Entries:
    """The entries, complete, that were added or changed."""
    return {key: load(name)[key] for key in _added.get(name, {})}


def bases() -> Entries:
    """Base models by name."""
    return load("bases")


def domains() -> Entries:
    """The five domains by name, in the paper's order, and added ones."""
    return load("domains")


def benchmarks() -> Entries:
    """Benchmarks and surrogates by name."""
    return load("benchmarks")


def lengths() -> Entries:
    """Tokens of the questions and answers of benchmarks, for forecasts."""
    return load("lengths")


def datasets() -> Entries:
    """Training sets and the data of the benchmarks by name."""
    return load("datasets")


def judges() -> dict[str, dict[str, Any]]:
    """Judges that are models, by name."""
    return load("judges")
