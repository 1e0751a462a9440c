"""Two scores of a benchmark item by item: which items both have, and on how many of them either is better."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mergebench.errors import MergebenchError

_SAME = 1e-9


@dataclass(frozen=True)
class Match:
    """Items of two scores, A and B.

    Attributes:
        items: how many both have scored.
        items_a: how many A has scored.
        items_b: how many B has scored.
        gained: on how many of the common ones B's outcome is higher.
        lost: on how many of the common ones B's outcome is lower.
        common: ids of the common items; None where both have scored the very same ones.
    """

    items: int
    items_a: int
    items_b: int
    gained: int
    lost: int
    common: frozenset[str] | None


def match(one: Path, other: Path) -> Match:
    """Match two item files by the items' ids, whatever the order of their rows. An item without an outcome is not scored.

    Raises:
        MergebenchError: a file cannot be read as what evaluation writes.
    """
    first, second = _read(one), _read(other)
    if first["item"].equals(second["item"]):
        a, b = (table["outcome"].to_numpy().astype(np.float64) for table in (first, second))
        names = first["item"].to_pylist()
    else:
        joined = pd.concat([_by_item(first), _by_item(second)], axis=1)
        a, b, names = joined.iloc[:, 0].to_numpy(), joined.iloc[:, 1].to_numpy(), list(joined.index)
    scored_a, scored_b = ~np.isnan(a), ~np.isnan(b)
    both = scored_a & scored_b
    change = b[both] - a[both]
    common = None if (scored_a == scored_b).all() else frozenset(name for name, kept in zip(names, both, strict=True) if kept)
    gained, lost = int((change > _SAME).sum()), int((change < -_SAME).sum())
    return Match(int(both.sum()), int(scored_a.sum()), int(scored_b.sum()), gained, lost, common)


def _read(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read(columns=["item", "outcome"]).combine_chunks()
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise MergebenchError(
            f"{path} cannot be read as the items of a score ({error}); delete it and its record so that both are made again."
        ) from error


def _by_item(table: pa.Table) -> pd.Series:
    """Mean outcome of every item, NaN where none of its rows has one."""
    return table.to_pandas().groupby("item")["outcome"].mean()
