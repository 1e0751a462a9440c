"""Outcomes of items, read from `scores/<base>/<model>/<benchmark>.items.parquet` for all models of a benchmark at once.

Items that ask the same thing are one *cluster*, drawn together by the bootstrap: rows to which evaluation gave the same `cluster`, and
without one the languages of a translated question, whose ids differ only in the language that leads them (`fr/<id>`), and rows with the
same id. All other items are clusters of their own, as all are in files from before that column.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mergebench.errors import MergebenchError

Model = tuple[str, str]
"""Base and folder name of a model."""

MEAN, MEAN_OVER_GROUPS, BEST_F1 = "mean", "mean_over_groups", "best_f1"
SMOOTHING = {"corpus_bleu": "exp", "smoothed_bleu": "add-one"}
AGGREGATES = (MEAN, MEAN_OVER_GROUPS, BEST_F1, *SMOOTHING)
CLUSTER = "cluster"
_COUNTS = 10
_COLUMNS = {MEAN: [], MEAN_OVER_GROUPS: [], BEST_F1: ["response", "extra"], **{name: ["extra"] for name in SMOOTHING}}


@dataclass(frozen=True)
class Part:
    """One group of a benchmark's items (all of them, unless the benchmark is a mean over groups), summed over each cluster.

    Attributes:
        clusters: int64 (c,), which clusters have items in this group.
        sums: float64 (c, models) sums of outcomes; (c, models, 10) of BLEU's counts.
        counts: float64 (c, models) number of scored items; (c, 1) where it is the same for all models.
    """

    clusters: np.ndarray
    sums: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Ranked:
    """One model's items of a benchmark whose metric is SQuAD's best F1, by rising probability of "unanswerable".

    `clusters` int64 (n,); `gain` float64 (n,), what answering adds; `silence` float64 (n,), the score of no answer.
    """

    clusters: np.ndarray
    gain: np.ndarray
    silence: np.ndarray


@dataclass(frozen=True)
class Outcomes:
    """Everything that a benchmark's score is made of, for every model, by cluster.

    Attributes:
        benchmark, aggregate: name, and how outcomes become a score.
        models: columns of the parts.
        strata: int64 (clusters,), which clusters are drawn for each other: those with items in the same groups.
        parts: per group; empty for best F1, which has `ranked` per model instead.
    """

    benchmark: str
    aggregate: str
    models: tuple[Model, ...]
    strata: np.ndarray
    parts: tuple[Part, ...]
    ranked: tuple[Ranked, ...]


def item_files(paths: list[Path]) -> dict[tuple[str, str, str], Path]:
    """Item files by base, model and benchmark, which their paths tell."""
    return {(path.parents[1].name, path.parent.name, path.name.partition(".")[0]): path for path in paths}


def read_outcomes(
    benchmark: str, aggregate: str, files: Mapping[Model, Path], kept: Mapping[Model, Collection[str]] | None = None
) -> Outcomes:
    """Read one benchmark's item files, one after another, and sum each up by cluster.

    The result does not depend on the order of rows or files. An item without an outcome (NaN) or without a row counts for nothing
    in that model's mean. Of the text columns, only those that the aggregate needs are read. Where some files have clusters and others do
    not, these hold for both, so that all models are resampled alike.

    Args:
        benchmark: name.
        aggregate: one of `AGGREGATES`.
        files: of each model.
        kept: items to which a model is confined; all items of models that it does not name.

    Raises:
        MergebenchError: a file cannot be read as what evaluation writes, or the aggregate is unknown.
    """
    if aggregate not in AGGREGATES:
        raise MergebenchError(f"Benchmark '{benchmark}' has the aggregate {aggregate!r}; the analysis knows {', '.join(AGGREGATES)}.")
    models = tuple(sorted(files))
    clusters, grouped = _Clusters(aggregate == MEAN_OVER_GROUPS), []
    with_clusters = [model for model in models if _has_clusters(files[model])]
    if 0 < len(with_clusters) < len(models):
        clusters.known = {item: name for model in with_clusters for item, name in _clusters_of(files[model])}
    for model in models:
        columns = ["item", "outcome", "group", *([CLUSTER] if model in with_clusters else []), *_COLUMNS[aggregate]]
        with _readable(files[model]):
            table = pq.ParquetFile(files[model]).read(columns=columns)
            if kept and model in kept:
                table = table.filter(pc.is_in(table["item"], pa.array(sorted(kept[model]), table["item"].type)))
            grouped.append(_model(table, clusters, aggregate))
    order, strata = clusters.sorted()
    if aggregate == BEST_F1:
        ranked = tuple(Ranked(order[each.clusters], each.gain, each.silence) for each in grouped)
        return Outcomes(benchmark, aggregate, models, strata, (), ranked)
    parts = tuple(_part([each.get(group) for each in grouped], order) for group in sorted({g for each in grouped for g in each}))
    return Outcomes(benchmark, aggregate, models, strata, parts, ())


def _has_clusters(path: Path) -> bool:
    with _readable(path):
        return CLUSTER in pq.read_schema(path).names


def _clusters_of(path: Path) -> Iterator[tuple[str, str]]:
    with _readable(path):
        table = pq.ParquetFile(path).read(columns=["item", CLUSTER])
        return zip(table["item"].to_pylist(), table[CLUSTER].to_pylist(), strict=True)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise MergebenchError(
            f"{path} cannot be read as the items of a score ({error}); delete it and its record so that both are made again."
        ) from error


class _Clusters:
    """Numbers clusters as they are first seen; `sorted` gives the numbers that do not depend on that order.

    Attributes:
        known: item -> cluster, for files that do not say.
    """

    def __init__(self, across_groups: bool) -> None:
        self.across_groups = across_groups
        self.numbers: dict[str, int] = {}
        self.groups: list[set[str]] = []
        self.known: dict[str, str] = {}
        self.last: tuple[tuple[pa.Array, ...], np.ndarray] | None = None

    def of(self, item: pa.Array, group: pa.Array, cluster: pa.Array | None) -> np.ndarray:
        """Number of each row's cluster, int64. Files of one benchmark have the same rows, so that the last answer mostly serves."""
        given = (item, group) if cluster is None else (item, group, cluster)
        if self.last and len(self.last[0]) == len(given) and all(a.equals(b) for a, b in zip(self.last[0], given, strict=True)):
            return self.last[1]
        items = item.to_pylist()
        named = cluster.to_pylist() if cluster is not None else [self.known.get(name, "") for name in items]
        found = np.empty(len(item), dtype=np.int64)
        for row, (name, inside, shared) in enumerate(zip(items, group.to_pylist(), named, strict=True)):
            key = shared or (name.removeprefix(f"{inside}/") if self.across_groups else name)
            number = self.numbers.setdefault(key, len(self.numbers))
            if number == len(self.groups):
                self.groups.append(set())
            if self.across_groups:
                self.groups[number].add(inside)
            found[row] = number
        self.last = (given, found)
        return found

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """New number of every number (by the clusters' names), and the stratum of every new number."""
        names = sorted(self.numbers)
        order = np.empty(len(names), dtype=np.int64)
        for new, name in enumerate(names):
            order[self.numbers[name]] = new
        signatures = [tuple(sorted(self.groups[self.numbers[name]])) for name in names]
        rank = {signature: position for position, signature in enumerate(sorted(set(signatures)))}
        return order, np.array([rank[signature] for signature in signatures], dtype=np.int64)


def _model(table: pa.Table, clusters: _Clusters, aggregate: str) -> Any:
    """One file: `Ranked` for best F1, else {group: (number, sum, count) of every cluster with a scored item}."""
    item, group = (table[name].combine_chunks() for name in ("item", "group"))
    numbers = clusters.of(item, group, table[CLUSTER].combine_chunks() if CLUSTER in table.column_names else None)
    outcome = table["outcome"].to_numpy().astype(np.float64)
    scored = ~np.isnan(outcome)
    if aggregate == BEST_F1:
        return _ranked(table.filter(pa.array(scored)), numbers[scored])
    if aggregate in SMOOTHING:
        rows = table["extra"].filter(pa.array(scored)).to_pylist()
        counted = np.array([json.loads(row)["counts"] for row in rows], dtype=np.float64).reshape(-1, _COUNTS)
        return {"": _by_cluster(numbers[scored], counted)}
    if aggregate == MEAN:
        return {"": _by_cluster(numbers[scored], outcome[scored])}
    codes = group.dictionary_encode()
    names, code = codes.dictionary.to_pylist(), codes.indices.to_numpy()
    return {name: _by_cluster(numbers[mine], outcome[mine]) for k, name in enumerate(names) if (mine := scored & (code == k)).any()}


def _by_cluster(numbers: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    sums = np.zeros((len(found), *values.shape[1:]))
    np.add.at(sums, place, values)
    return found, sums, counts


def _part(columns: list[tuple[np.ndarray, np.ndarray, np.ndarray] | None], order: np.ndarray) -> Part:
    """Join the models' sums of one group; a model without a cluster has nothing there."""
    there = np.unique(np.concatenate([order[column[0]] for column in columns if column is not None]))
    shape = next(column[1].shape[1:] for column in columns if column is not None)
    sums, counts = np.zeros((len(there), len(columns), *shape)), np.zeros((len(there), len(columns)))
    for position, column in enumerate(columns):
        if column is not None:
            place = np.searchsorted(there, order[column[0]])
            sums[place, position], counts[place, position] = column[1], column[2]
    return Part(there, sums, counts[:, :1].copy() if (counts == counts[:, :1]).all() else counts)


def _ranked(table: pa.Table, numbers: np.ndarray) -> Ranked:
    """Rajpurkar et al. 2018, script `find_best_thresh`, as in `evaluation.aggregate.best_f1`."""
    extra = [json.loads(row) for row in table["extra"].to_pylist()]
    silent = np.array([response == "" for response in table["response"].to_pylist()], dtype=bool)
    answerable = np.array([row["answerable"] for row in extra], dtype=bool)
    f1 = np.array([row["f1"] for row in extra], dtype=np.float64)
    rank = np.argsort([row["no_answer_probability"] for row in extra], kind="stable")
    gain = np.where(answerable, f1, np.where(silent, 0.0, -1.0))
    return Ranked(numbers[rank], gain[rank], (~answerable)[rank].astype(np.float64))
