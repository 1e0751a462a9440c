"""What each method has used in all: hours, memory, energy, and their price at the site's prices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mergebench.analysis.costs import jobs_of
from mergebench.analysis.scope import Scope
from mergebench.analysis.uncertainty import ALL_BASES

SPENDING = [
    "wall_seconds", "cpu_hours", "gpu_hours", "peak_memory_mib", "peak_gpu_memory_mib", "energy_kwh", "price", "earlier_attempts",
]  # fmt: skip
SOUP = "model_soup"
NOTHING, TRAINING, VALIDATION = "nothing", "training", "validation"
_JOULES_PER_KWH = 3.6e6
_PEAKS = ["peak_memory_mib", "peak_gpu_memory_mib"]


def spending(jobs: pd.DataFrame, scope: Scope) -> pd.DataFrame:
    """Sum up the jobs that each method is charged with, on every base and over the bases.

    Seconds and hours are sums over jobs, whether or not they ran at the same time. Peaks are those of the largest job. Energy is
    that of the GPUs, with that of CPU packages where every job of the method had its node for itself; without GPUs it is that of the
    packages. The price is that of GPU-hours, CPU-hours and, where a kWh has a price, of the energy.

    Args:
        jobs: as of `costs.read_costs`.

    Returns:
        Frame indexed by (base or `ALL_BASES`, method) with columns `SPENDING`: MiB, kWh, the site's currency; NaN where a record is
        missing or does not say. Over bases: the mean; of peaks the highest.
    """
    rows = {}
    for base in scope.bases:
        for method in scope.methods:
            mine, complete = jobs_of(jobs, scope, base, method)
            rows[base, method] = _total(mine, scope.prices) if complete else dict.fromkeys(SPENDING, np.nan)
    index = pd.MultiIndex.from_product([scope.bases, scope.methods], names=["base", "method"])
    frame = pd.DataFrame([rows[where] for where in index], index=index, columns=SPENDING).astype(float)
    groups = frame.groupby("method", sort=False)
    overall = groups.agg(lambda column: column.max(skipna=False) if column.name in _PEAKS else column.mean(skipna=False))
    return pd.concat([frame, pd.concat({ALL_BASES: overall.reindex(scope.methods)}, names=["base"])])


def needs(scope: Scope, method: str) -> str:
    """The data without which a method has no such result: "nothing", "training", "validation" or "training and validation".

    A method with a grid needs validation data (surrogates) to choose from it.
    """
    wanted = [TRAINING] if scope.data.get(method) == TRAINING else []
    wanted += [VALIDATION] if method in scope.tuned else []
    return " and ".join(wanted) or NOTHING


def shared(jobs: pd.DataFrame, scope: Scope) -> dict[str, tuple[float, tuple[str, ...]]]:
    """Statistics that several methods read: by kind, the wall seconds of all bases, charged anew to each but the first, and the
    methods that read it. NaN where a record is missing."""
    kinds = dict.fromkeys(kind for method in scope.methods for kind in scope.statistics.get(method, ()))
    found = {}
    for kind in kinds:
        readers = tuple(method for method in scope.methods if kind in scope.statistics.get(method, ()))
        mine = jobs[(jobs["kind"] == kind) & jobs["base"].isin(scope.bases) & jobs["domain"].isin(scope.domains)]
        complete = len(mine) == len(scope.bases) * len(scope.domains)
        if len(readers) > 1:
            found[kind] = (mine["wall_seconds"].sum(skipna=False) if complete else np.nan, readers)
    return found


def _total(jobs: pd.DataFrame, prices: Mapping[str, Any] | None) -> dict[str, float]:
    parts = ("wall_seconds", "cpu_seconds", "gpu_seconds", "gpu_joules", "cpu_joules")
    summed = {name: float(jobs[name].sum(skipna=False)) for name in parts}
    cpu_hours, gpu_hours = summed["cpu_seconds"] / 3600, summed["gpu_seconds"] / 3600
    packages = summed["cpu_joules"]
    joules = packages if gpu_hours == 0 else summed["gpu_joules"] + (0.0 if np.isnan(packages) else packages)
    energy = joules / _JOULES_PER_KWH
    price = np.nan
    if prices is not None:
        price = prices["gpu_hour"] * gpu_hours + prices["cpu_hour"] * cpu_hours
        price += prices["kwh"] * energy if prices["kwh"] is not None else 0.0
    return {
        "wall_seconds": summed["wall_seconds"],
        "cpu_hours": cpu_hours,
        "gpu_hours": gpu_hours,
        "peak_memory_mib": float(jobs["peak_rss_bytes"].max()) / 2**20,
        "peak_gpu_memory_mib": float(jobs["gpu_peak_bytes"].max(skipna=False)) / 2**20,
        "energy_kwh": energy,
        "price": price,
        "earlier_attempts": float(jobs["earlier_attempts"].sum()),
    }
