"""Normalised performance, retention and recovery, with standard errors (paper sections 4.1 and 4.2).

All three are the same thing, the *share* of a distance that a model covers on a benchmark:

    share = (model - anchor) / (reference - anchor)

    normalised performance   anchor 0       reference = specialist of the benchmark's domain
    retention                anchor 0       reference = base                    (the paper's "% of base")
    recovery                 anchor = base  reference = specialist of the benchmark's domain

Shares are averaged over the benchmarks of a domain, then over domains, then (in tables) over bases; every mean is
unweighted. The paper says "mean over tasks" and leaves the order open: this one keeps a domain with four benchmarks
from counting four times.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mergebench.analysis.labels import BASE, SPECIALIST_PREFIX
from mergebench.analysis.scope import FORGETTING, IN_DOMAIN, Scope

FLOOR = 0.02
"""A benchmark whose reference is less than this above the anchor is left out: its ratio would be mostly noise."""

USED, LEFT_OUT, MISSING = "used", "left out", "missing"


def performance_cells(scores: pd.DataFrame, scope: Scope) -> pd.DataFrame:
    """Normalised performance of every model on every in-domain benchmark; see `_cells` for the columns."""
    return _cells(scores, scope, IN_DOMAIN, to_base=False, anchored=False)


def retention_cells(scores: pd.DataFrame, scope: Scope) -> pd.DataFrame:
    """Share of the base's score that every model keeps on every forgetting benchmark."""
    return _cells(scores, scope, FORGETTING, to_base=True, anchored=False)


def recovery_cells(scores: pd.DataFrame, scope: Scope) -> pd.DataFrame:
    """Share of the specialist's gain over its base that every model recovers on every in-domain benchmark."""
    return _cells(scores, scope, IN_DOMAIN, to_base=False, anchored=True)


def domain_shares(cells: pd.DataFrame) -> pd.DataFrame:
    """Average cells over the benchmarks of a domain that count.

    Returns:
        Frame indexed by (base, model, domain) with `share` and `variance`; NaN where a benchmark is missing.
    """
    return _strict_means(cells[cells["state"] != LEFT_OUT], ["base", "model", "domain"])


def summarise(cells: pd.DataFrame) -> pd.DataFrame:
    """Average cells over the benchmarks of a domain, then over domains.

    Returns:
        Frame indexed by (base, model) with `share` and `standard_error`. A model that lacks one benchmark that counts has
        NaN, never a mean over fewer benchmarks than its rivals; so has one for which no benchmark counts.
    """
    models = _strict_means(domain_shares(cells).reset_index(), ["base", "model"])
    everything = pd.MultiIndex.from_frame(cells[["base", "model"]].drop_duplicates())
    models = models.reindex(everything)
    return pd.DataFrame({"share": models["share"], "standard_error": np.sqrt(models["variance"])})


def over_bases(summary: pd.DataFrame) -> pd.DataFrame:
    """The "Overall" row: mean over bases, indexed by model; NaN where one base is missing."""
    frame = summary.reset_index()
    means = _strict_means(frame.assign(variance=frame["standard_error"] ** 2), ["model"])
    return pd.DataFrame({"share": means["share"], "standard_error": np.sqrt(means["variance"])})


def domain_scores(scores: pd.DataFrame, scope: Scope) -> pd.DataFrame:
    """Mean raw score over the in-domain benchmarks of each domain.

    Returns:
        Frame indexed by (base, model) in campaign order, one column per domain, in [0, 1]; NaN where a benchmark is missing.
    """
    cells = performance_cells(scores, scope)
    grouped = cells.groupby(["base", "model", "domain"], sort=False)["value"].agg(["mean", "count", "size"])
    wide = grouped["mean"].where(grouped["count"] == grouped["size"]).unstack("domain")
    index = pd.MultiIndex.from_product([scope.bases, scope.models], names=["base", "model"])
    return wide.reindex(index=index, columns=list(scope.domains))


def left_out(cells: pd.DataFrame) -> list[tuple[str, str]]:
    """The (base, benchmark) pairs that do not count because the reference is within `FLOOR` of the anchor."""
    pairs = cells.loc[cells["state"] == LEFT_OUT, ["base", "benchmark"]].drop_duplicates()
    return list(pairs.itertuples(index=False, name=None))


def missing_targets(cells: pd.DataFrame, models: tuple[str, ...]) -> list[str]:
    """Score files, relative to the results folder, that would complete the cells of `models`."""
    gaps = cells[(cells["state"] == MISSING) & cells["model"].isin(models)]
    targets: dict[str, None] = {}
    for name, value in (("absent", "value"), ("anchor", "anchor_value"), ("reference", "reference_value")):
        for row in gaps[gaps[value].isna()].itertuples():
            models = row.absent if name == "absent" else (getattr(row, name),)
            targets |= {f"scores/{row.base}/{model}/{row.benchmark}.json": None for model in models}
    return sorted(targets)


def _cells(scores: pd.DataFrame, scope: Scope, role: str, *, to_base: bool, anchored: bool) -> pd.DataFrame:
    """One row per base, model and benchmark of `role`, whether scored or not.

    Columns: base, model, domain, benchmark, value, reference and anchor (model names; anchor "" means zero),
    reference_value, anchor_value, state (used | left out | missing), share, variance. The variance is the delta method's,
    from the standard errors of the three scores taken as independent; it is zero where the model *is* the reference or
    the anchor. Scores on the same items are positively correlated, so it errs on the wide side.

    Of a method with several seeds value is the mean over them, and its error theirs (root mean square: they answer the same items, which
    does not average out); column absent has the models that it lacks.
    """
    rows = [
        (base, model, benchmark.domain, benchmark.name, BASE if to_base else SPECIALIST_PREFIX + benchmark.domain)
        for base in scope.bases
        for model in scope.models
        for benchmark in scope.of_role(role)
    ]
    cells = pd.DataFrame(rows, columns=["base", "model", "domain", "benchmark", "reference"])
    cells["anchor"] = BASE if anchored else ""
    value, error, absent = _look_up_means(scores, cells, scope)
    high, high_error = _look_up(scores, cells, "reference")
    low, low_error = _look_up(scores, cells, "anchor") if anchored else (np.zeros(len(cells)), np.zeros(len(cells)))

    distance = high - low
    state = np.full(len(cells), USED, dtype=object)
    state[np.isnan(value) | np.isnan(distance)] = MISSING
    state[distance < FLOOR] = LEFT_OUT
    distance = np.where(state == USED, distance, np.nan)
    share = (value - low) / distance
    variance = (error**2 + (share * high_error) ** 2 + ((share - 1) * low_error) ** 2) / distance**2
    itself = (cells["model"] == cells["reference"]) | (cells["model"] == cells["anchor"])
    variance = np.where(itself & (state == USED), 0.0, variance)
    return cells.assign(absent=absent, value=value, reference_value=high, anchor_value=low, state=state, share=share, variance=variance)


def _look_up_means(scores: pd.DataFrame, cells: pd.DataFrame, scope: Scope) -> tuple[np.ndarray, np.ndarray, list[tuple[str, ...]]]:
    """Value and standard error of the model of each cell, of several seeds together, and the models that lack a score."""
    value, error = _look_up(scores, cells, "model")
    absent: list[tuple[str, ...]] = [(model,) if gone else () for model, gone in zip(cells["model"], np.isnan(value), strict=True)]
    for first, models in scope.several.items():
        rows = np.flatnonzero(cells["model"] == first)
        each = [_look_up(scores, cells.iloc[rows].assign(model=model), "model") for model in models]
        values, errors = np.array([found[0] for found in each]), np.array([found[1] for found in each])
        value[rows], error[rows] = values.mean(axis=0), np.sqrt((errors**2).mean(axis=0))
        for row, gone in zip(rows, np.isnan(values).T, strict=True):
            absent[row] = tuple(model for model, lacks in zip(models, gone, strict=True) if lacks)
    return value, error, absent


def _look_up(scores: pd.DataFrame, cells: pd.DataFrame, who: str) -> tuple[np.ndarray, np.ndarray]:
    """Value and standard error, NaN where absent, of the model named in column `who` of each cell."""
    known = scores.set_index(["base", "model", "benchmark"], verify_integrity=True)[["value", "standard_error"]]
    wanted = pd.MultiIndex.from_frame(cells[["base", who, "benchmark"]])
    found = known.reindex(wanted).to_numpy(dtype=float)
    return found[:, 0], found[:, 1]


def _strict_means(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Group means of `share` and the variance of that mean; one NaN makes its group NaN (pandas would skip it)."""
    groups = frame.groupby(by, sort=False)[["share", "variance"]]
    size = groups.size()
    totals = groups.sum().where(groups.count().eq(size, axis=0))
    return pd.DataFrame({"share": totals["share"] / size, "variance": totals["variance"] / size**2})
