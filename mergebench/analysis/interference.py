"""How the task vectors of each base relate to each other, from the sums of the `interference` stage.

Ratios are made of sums: the cosine of a layer is that of its task vectors, not a mean over its tensors. Means are over pairs of domains,
or over domains, and unweighted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mergebench.analysis.scope import Scope
from mergebench.errors import MergebenchError

OUTSIDE = -1
"""Layer number of what belongs to no layer: embedding, head, the last norm."""

_SUMS = [
    "entries", "base_squares", "product", "agreements", "conflicts", "large_agreements", "large_conflicts", "elected", "shared",
    "contested", "large_shared", "large_contested",
]  # fmt: skip
_COLUMNS = ["base", "layer", "module", "first", "second", *_SUMS]
TOGETHER = ["contested_percent", "largest_contested_percent"]
OWN = ["norm", "relative_norm_percent", "moved_percent", "largest_percent", "elected_percent"]
PAIR = [
    "cosine", "sign_conflict_percent", "largest_sign_conflict_percent", "overlap_percent", "overlap_by_chance_percent", "jaccard_percent",
    "jaccard_by_chance_percent", "times_chance",
]  # fmt: skip
MEASURES = [*OWN, *PAIR, *TOGETHER]


def read_interference(paths: Iterable[Path], scope: Scope) -> Interference:
    """Read `vectors/<base>/interference.parquet` of the campaign's bases; what is of other bases or domains is left out.

    Raises:
        MergebenchError: A file is not what the stage writes.
    """
    frames = []
    for path in map(Path, paths):
        base = path.parent.name
        if base not in scope.bases:
            continue
        try:
            frame = pd.read_parquet(path, columns=[name for name in _COLUMNS if name != "base"])
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise MergebenchError(
                f"{path} cannot be read as sums over task vectors ({error}); delete it so that it is made again."
            ) from error
        frame = frame[frame["first"].isin(scope.domains) & frame["second"].isin(scope.domains)]
        frames.append(frame.assign(base=base, layer=frame["layer"].fillna(OUTSIDE).astype("int64")))
    return Interference(pd.concat(frames, ignore_index=True)[_COLUMNS] if frames else pd.DataFrame(columns=_COLUMNS), scope.domains)


@dataclass(frozen=True)
class Level:
    """The measures of some cut through the models (`MEASURES`), NaN where there is nothing to divide by.

    Attributes:
        own: of each task vector, indexed by base, the cut and domain; columns `OWN`.
        pairs: of each pair, indexed by base, the cut, `first` and `second`, both orders; columns `PAIR`.
        means: over domains and over pairs, indexed by base and the cut, with the shares of entries at which any two conflict.
    """

    own: pd.DataFrame
    pairs: pd.DataFrame
    means: pd.DataFrame


@dataclass(frozen=True)
class Interference:
    """Sums by tensor and pair of domains, as read; empty where no base was measured."""

    sums: pd.DataFrame
    domains: tuple[str, ...]

    @property
    def bases(self) -> frozenset[str]:
        """The bases that were measured."""
        return frozenset(self.sums["base"])

    @cached_property
    def whole(self) -> Level:
        """Of whole models."""
        return self._level([])

    @cached_property
    def modules(self) -> Level:
        """By kind of module."""
        return self._level(["module"])

    @cached_property
    def layers(self) -> Level:
        """By layer; what belongs to none is left out."""
        return self._level(["layer"], self.sums["layer"] != OUTSIDE)

    @cached_property
    def cells(self) -> Level:
        """By layer and kind of module, what belongs to no layer under `OUTSIDE`."""
        return self._level(["layer", "module"])

    def _level(self, by: list[str], chosen: Any = slice(None)) -> Level:
        keys = ["base", *by]
        sums = self.sums.loc[chosen].groupby([*keys, "first", "second"])[_SUMS].sum().reset_index()
        own = sums[sums["first"] == sums["second"]].drop(columns="second").rename(columns={"first": "domain"})
        pairs = sums[sums["first"] != sums["second"]]
        for side in ("first", "second"):
            columns = {"product": f"squares_{side}", "large_agreements": f"large_{side}"}
            other = own[[*keys, "domain", *columns]].rename(columns={"domain": side, **columns})
            pairs = pairs.merge(other, on=[*keys, side])
        both = pd.concat([pairs, pairs.rename(columns={"first": "second", "second": "first"})])
        one, two = _own(own.set_index([*keys, "domain"])), _pairs(pairs.set_index([*keys, "first", "second"]))
        together = own.drop_duplicates(keys).set_index(keys)
        elected = own.groupby(keys)[["elected", "large_agreements"]].sum()
        means = (
            one.groupby(level=keys).mean().assign(elected_percent=_percent(elected["elected"], elected["large_agreements"]), norm=np.nan)
        )
        means = means.join(two.groupby(level=keys).mean())
        for name, kind in zip(TOGETHER, ("", "large_"), strict=True):
            means[name] = _percent(together[f"{kind}contested"], together[f"{kind}shared"])
        return Level(one, _pairs(both.set_index([*keys, "first", "second"])), means.reindex(columns=MEASURES))


def _own(sums: pd.DataFrame) -> pd.DataFrame:
    norm, base = np.sqrt(sums["product"]), np.sqrt(sums["base_squares"])
    return pd.DataFrame(
        {
            "norm": norm,
            "relative_norm_percent": _percent(norm, base),
            "moved_percent": _percent(sums["agreements"], sums["entries"]),
            "largest_percent": _percent(sums["large_agreements"], sums["entries"]),
            "elected_percent": _percent(sums["elected"], sums["large_agreements"]),
        }
    )


def _pairs(sums: pd.DataFrame) -> pd.DataFrame:
    common, large = sums["large_agreements"] + sums["large_conflicts"], sums[["large_first", "large_second"]].astype(float)
    expected = _ratio(large.prod(axis=1), sums["entries"])
    return pd.DataFrame(
        {
            "cosine": _ratio(sums["product"], np.sqrt(sums["squares_first"]) * np.sqrt(sums["squares_second"])),
            "sign_conflict_percent": _percent(sums["conflicts"], sums["agreements"] + sums["conflicts"]),
            "largest_sign_conflict_percent": _percent(sums["large_conflicts"], common),
            "overlap_percent": _percent(common, large.min(axis=1)),
            "overlap_by_chance_percent": _percent(expected, large.min(axis=1)),
            "jaccard_percent": _percent(common, large.sum(axis=1) - common),
            "jaccard_by_chance_percent": _percent(expected, large.sum(axis=1) - expected),
            "times_chance": _ratio(common, expected),
        }
    )


def _ratio(part: Any, whole: Any) -> pd.Series:
    divisor = whole.astype(float)
    return part.astype(float) / divisor.where(divisor > 0)


def _percent(part: Any, whole: Any) -> pd.Series:
    return 100 * _ratio(part, whole)
