"""Results folders as `mergebench compare` takes them: what a folder has scored, without the configuration that made it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mergebench import catalogue
from mergebench.analysis.headline import warnings_of
from mergebench.analysis.items import item_files
from mergebench.analysis.labels import BASE, MERGED_PREFIX, MULTITASK, SPECIALIST_PREFIX, UNTOUCHED_BASE, methods_in_order
from mergebench.analysis.records import Record
from mergebench.analysis.scope import SURROGATE
from mergebench.analysis.scores import KEYS, read_scores
from mergebench.errors import MergebenchError, nearest

Key = tuple[str, str, str]
"""Base, folder name of a model, benchmark."""


@dataclass(frozen=True)
class Run:
    """One results folder, or one model of it.

    Attributes:
        name: as it was given.
        folder: results of one preset.
        model: folder name of the model that is meant; None for all.
        values: score in [0, 1] of every record but those on surrogates.
        records: what evaluation wrote with each.
        items: item file of each, where there is one.
        warnings: what stands in the folder's tables, such as that its methods were tuned on a test set.
    """

    name: str
    folder: Path
    model: str | None
    values: dict[Key, float]
    records: dict[Key, dict[str, Any]]
    items: dict[Key, Path]
    warnings: tuple[str, ...]

    @property
    def bases(self) -> tuple[str, ...]:
        """In the order of the catalogue."""
        return tuple(_ordered({base for base, _, _ in self.values}, catalogue.bases()))

    def models(self, bases: Iterable[str]) -> tuple[str, ...]:
        """Models with a score on one of these bases: the base, specialists, the multitask model, merged ones."""
        wanted = set(bases)
        return in_order({model for base, model, _ in self.values if base in wanted})

    def has(self, base: str, model: str) -> bool:
        """Whether a model has a score."""
        return any(key[:2] == (base, model) for key in self.values)


def open_run(text: str) -> Run:
    """Open `RUN` or `RUN:METHOD`, where METHOD is a method or a model's folder name (`base`, `multitask`, `specialist_math`).

    Raises:
        MergebenchError: there is no such folder, it holds no scores, its records are malformed, or it has no such model.
    """
    folder, asked = Path(text), None
    if not folder.is_dir():
        head, colon, tail = text.rpartition(":")
        if not colon or not Path(head).is_dir():
            raise MergebenchError(f"{text} is not a folder; give the results of a preset, such as results/tiny, or results/tiny:METHOD.")
        folder, asked = Path(head), tail
    paths = sorted(folder.glob("scores/*/*/*.json"))
    if not paths:
        inside = sorted({path.parents[1] for path in folder.glob("*/scores/*/")})
        found = f"; did you mean {inside[0]}?" if inside else ", which the evaluation writes; give the results of a preset."
        raise MergebenchError(f"{folder} holds no scores/<base>/<model>/<benchmark>.json{found}")
    frame = read_scores(paths)
    frame = frame[frame["role"] != SURROGATE]
    values = {(row.base, row.model, row.benchmark): float(row.value) for row in frame[[*KEYS, "value"]].itertuples()}
    records = {key: Record(path).content for path in paths if (key := _key(path)) in values}
    items = item_files(sorted(folder.glob("scores/*/*/*.items.parquet")))
    headline = folder / "tables" / "headline.csv"
    said = tuple(warnings_of(headline)) if headline.is_file() else ()
    run = Run(text, folder, None, values, records, {key: path for key, path in items.items() if key in values}, said)
    return run if asked is None else _one_model(run, asked)


def in_order(models: Iterable[str]) -> tuple[str, ...]:
    """Folder names of models in the order of every table."""
    found = set(models)
    merged = methods_in_order(model.removeprefix(MERGED_PREFIX) for model in found if model.startswith(MERGED_PREFIX))
    domains = _ordered({m.removeprefix(SPECIALIST_PREFIX) for m in found if m.startswith(SPECIALIST_PREFIX)}, catalogue.domains())
    everything = (BASE, *(SPECIALIST_PREFIX + domain for domain in domains), *(MERGED_PREFIX + method for method in merged), MULTITASK)
    return tuple(model for model in everything if model in found)


def _one_model(run: Run, asked: str) -> Run:
    models = run.models(run.bases)
    names = {UNTOUCHED_BASE: BASE} | {model.removeprefix(MERGED_PREFIX): model for model in models} | {model: model for model in models}
    if names.get(asked) not in models:
        known = [model.removeprefix(MERGED_PREFIX) for model in models]
        raise MergebenchError(f"{run.folder} has no scores of '{asked}'; {nearest(asked, known)}.")
    return Run(run.name, run.folder, names[asked], run.values, run.records, run.items, run.warnings)


def _key(path: Path) -> Key:
    return path.parents[1].name, path.parent.name, path.stem


def _ordered(names: set[str], listed: Iterable[str]) -> list[str]:
    """Those of the catalogue in its order, then others by name."""
    known = [name for name in listed if name in names]
    return [*known, *sorted(names.difference(known))]


def benchmark_entries(runs: Iterable[Run]) -> pd.DataFrame:
    """Role and domain of every benchmark that one of the runs has scored, indexed by benchmark in the order of the catalogue.

    Raises:
        MergebenchError: two records of a benchmark do not agree.
    """
    found: dict[str, tuple[str, str, str]] = {}
    for run in runs:
        for key, record in run.records.items():
            entry = (str(record["role"]), str(record["domain"]))
            role, domain, where = found.setdefault(key[2], (*entry, f"{run.folder}/scores/{'/'.join(key)}.json"))
            if entry != (role, domain):
                raise MergebenchError(
                    f"{run.folder}/scores/{'/'.join(key)}.json has the role and domain {' '.join(entry)}, but {where} has {role} "
                    f"{domain}; scores of one benchmark need the same."
                )
    names = _ordered(set(found), catalogue.benchmarks())
    return pd.DataFrame([found[name][:2] for name in names], index=names, columns=["role", "domain"])
