"""The table of costs: what each method has used, what that is worth, and what a point over Model Soup costs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from mergebench.analysis.comparisons import ALPHA
from mergebench.analysis.costs import jobs_of
from mergebench.analysis.labels import title
from mergebench.analysis.spending import SOUP, SPENDING, needs, shared
from mergebench.analysis.tables import NOT_APPLICABLE, OVERALL, Evidence, Table, missing_note

PER_POINT = ["against_soup", "price_per_point", "price_per_point_low", "price_per_point_high"]
REFERENCE, OPEN, DOMINATED = "reference", "not separable", "dominated"
BETTER_DEARER, BETTER_CHEAPER, WORSE_CHEAPER = "better, costs more", "better, costs no more", "worse, costs less"
_FINE = 8


def costs(evidence: Evidence) -> Table:
    """Time, memory, energy and price of every method on every base, and the price of a point of performance over Model Soup."""
    scope = evidence.scope
    rows = [(base, method) for base in shown_bases(evidence) for method in scope.methods]
    index = pd.MultiIndex.from_tuples(rows, names=["base", "method"])
    measured = evidence.costs[["algorithm_seconds", "validation_seconds"]]
    means = measured.groupby("method").agg(lambda column: column.mean(skipna=False))
    timing = pd.concat([measured, pd.concat({OVERALL: means}, names=["base"])]).reindex(index)
    spent = evidence.spending.reindex(index)
    frame = pd.DataFrame({"data": [needs(scope, method) for _, method in rows]}, index=index).join(timing)
    rest = spent["wall_seconds"] - frame["algorithm_seconds"] - frame["validation_seconds"]
    frame["rest_seconds"] = rest.clip(lower=0)  # work of earlier attempts is timed, their starts are not
    frame = frame.join(spent)
    per_point = pd.DataFrame([row for base in shown_bases(evidence) for row in price_per_point(evidence, base)], index=index)
    frame[PER_POINT] = per_point[PER_POINT]
    frame = _not_measured(evidence, frame)
    money = scope.prices["currency"] if scope.prices else NOT_APPLICABLE
    frame.insert(list(frame).index("price") + 1, "currency", money)
    display = frame.reset_index().drop(columns=["earlier_attempts", "wall_seconds", "currency", *PER_POINT])
    display["method"] = display["method"].map(title)
    for column in ("cpu_hours", "gpu_hours", "energy_kwh", "price"):
        display[column] = display[column].map(figures)
    display["per_point"] = [_shown_per_point(row) for row in frame.to_dict("records")]
    return Table(
        "costs",
        frame.reset_index(),
        [*_notes(evidence), *missing_note(missing_costs(evidence))],
        display=display,
        headings={
            "base": "Base",
            "method": "Method",
            "data": "Data that it needs",
            "algorithm_seconds": "Algorithm (s)",
            "validation_seconds": "Validation (s)",
            "rest_seconds": "Loading and the rest (s)",
            "cpu_hours": "CPU-hours",
            "gpu_hours": "GPU-hours",
            "peak_memory_mib": "Peak memory (MiB)",
            "peak_gpu_memory_mib": "Peak GPU memory (MiB)",
            "energy_kwh": "Energy (kWh)",
            "price": f"Price ({money})",
            "per_point": f"A point over Model Soup ({money})",
        },
        decimals={
            "peak_memory_mib": 0,
            "peak_gpu_memory_mib": 0,
            "earlier_attempts": 0,
            **dict.fromkeys(("cpu_hours", "gpu_hours", "energy_kwh", "price", *PER_POINT[1:]), _FINE),
        },
        names=3,
    )


TABLES: dict[str, Callable[[Evidence], Table]] = {"costs": costs}


def shown_bases(evidence: Evidence) -> tuple[str, ...]:
    """The bases, and all of them together where there are several."""
    bases = evidence.scope.bases
    return (*bases, OVERALL) if len(bases) > 1 else bases


def price_per_point(evidence: Evidence, base: str) -> list[dict[str, str | float]]:
    """(price - price of Model Soup) / (performance - performance of Model Soup), for methods that are better and cost more.

    Performance is compared on the same resampled items, with Holm's correction over all pairs of methods of the base; the interval
    (95 %) is that of the draws. Prices have no error.

    Returns:
        `PER_POINT` of every method: how it stands against Model Soup, and the ratio with its interval, NaN where something is
        missing and "n/a" where there is no such ratio.
    """
    draws = evidence.method_draws("performance", base)
    pairs = evidence.comparisons["performance", base]
    prices = evidence.spending["price"][base]
    return [dict(zip(PER_POINT, _against(method, draws, pairs, prices), strict=True)) for method in evidence.scope.methods]


def figures(value: float | str) -> str:
    """A small number with two significant digits at least, and two decimals."""
    if isinstance(value, str):
        return value
    if math.isnan(value):
        return "missing"
    places = 2 if value == 0 else max(2, 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(places, _FINE)}f}"


def _against(method: str, draws: dict[str, np.ndarray], pairs: pd.DataFrame, prices: pd.Series) -> tuple[str | float, ...]:
    nothing = (NOT_APPLICABLE,) * 3
    if method == SOUP:
        return (REFERENCE, *nothing)
    if SOUP not in prices.index:
        return (NOT_APPLICABLE, *nothing)
    if any(name not in draws or math.isnan(draws[name][0]) for name in (method, SOUP)):
        return (math.nan,) * 4
    pair = pairs[pairs["better"].isin([method, SOUP]) & pairs["worse"].isin([method, SOUP])]
    if pair.empty:  # no items, so no draws
        return (NOT_APPLICABLE, *nothing)
    if pair["p_holm"].item() >= ALPHA:
        return (OPEN, *nothing)
    dearer = float(prices[method] - prices[SOUP])
    if math.isnan(dearer):
        return (math.nan,) * 4
    if pair["better"].item() == SOUP:
        return (WORSE_CHEAPER if dearer < 0 else DOMINATED, *nothing)
    if dearer <= 0:
        return (BETTER_CHEAPER, *nothing)
    gained = draws[method] - draws[SOUP]
    low, high = np.percentile(gained[1:], [50 * ALPHA, 100 - 50 * ALPHA])
    return BETTER_DEARER, dearer / gained[0], dearer / high, dearer / low if low > 0 else math.inf


def _not_measured(evidence: Evidence, frame: pd.DataFrame) -> pd.DataFrame:
    """What jobs are there for but no record says is "n/a", not missing."""
    there = frame["algorithm_seconds"].notna()
    for column in SPENDING:
        frame[column] = frame[column].astype(object).mask(there & frame[column].isna(), NOT_APPLICABLE)
    without = [isinstance(hours, float) and hours == 0 for hours in frame["gpu_hours"]]
    frame["peak_gpu_memory_mib"] = frame["peak_gpu_memory_mib"].mask(pd.Series(without, index=frame.index), NOT_APPLICABLE)
    if evidence.scope.prices is None:
        frame["price"] = NOT_APPLICABLE
    unpriced = frame["price"].eq(NOT_APPLICABLE) & frame["against_soup"].isna()
    frame[PER_POINT] = frame[PER_POINT].astype(object).where(~unpriced, NOT_APPLICABLE)
    return frame


def _shown_per_point(row: dict[str, str | float]) -> str:
    ratio, low, high = (row[column] for column in PER_POINT[1:])
    if isinstance(ratio, str):
        return str(row["against_soup"])
    if math.isnan(ratio):
        return "missing"
    assert isinstance(low, float)
    assert isinstance(high, float)
    return f"{figures(ratio)} [{figures(low)}, {figures(high) if math.isfinite(high) else 'no limit'}]"


def _notes(evidence: Evidence) -> list[str]:
    scope = evidence.scope
    notes = [
        "Rule: a method is charged with its merge, its search and all statistics that it reads. Algorithm and validation: as in `runtime`. "
        "Hours are sums over jobs, with failed attempts; CPU-hours are CPU time used, of the last attempt. Peak memory: of the largest "
        "job. Overall: mean over the bases, of peaks the highest."
    ]
    if scope.prices is not None:
        energy = "" if scope.prices["kwh"] is None else f" and {scope.prices['kwh']:g} per kWh"
        notes.append(
            f"Prices: {scope.prices['gpu_hour']:g} {scope.prices['currency']} per GPU-hour, {scope.prices['cpu_hour']:g} per CPU-hour"
            f"{energy}. They are what the configuration says (`analysis.prices`), whose defaults are assumptions."
        )
    notes.append(
        "Energy: of the GPUs that jobs held for themselves, and of CPU packages where a job had all cores of its node; n/a: not measured."
    )
    notes.append(
        "A point over Model Soup: (price - price of Model Soup) / (performance - performance of Model Soup), with its 95 % interval "
        f"from the items; `{OPEN}`: the difference of performance is not separable from zero at {100 * ALPHA:.0f} % (Holm); `{DOMINATED}`: "
        "costs as much or more and is worse."
    )
    for kind, (seconds, readers) in shared(evidence.charges, scope).items():
        again = (len(readers) - 1) * seconds
        saved = "" if math.isnan(again) else f" A campaign of all of them has spent {again:.1f} s less than the sum."
        notes.append(f"{title(kind)} statistics are shared by {', '.join(map(title, readers))}; each is charged in full.{saved}")
    failed = evidence.spending["earlier_attempts"].drop(OVERALL, level=0)
    repeated = [f"{title(method)} ({base})" for base, method in failed.index[failed > 0]]
    if repeated:
        notes.append(f"With failed attempts, of which CPU time and energy are not known and not counted: {', '.join(repeated)}.")
    return notes


def missing_costs(evidence: Evidence) -> list[str]:
    """The cost records that are still to be made."""
    scope, charges = evidence.scope, evidence.charges
    targets = []
    for base in scope.bases:
        for method in scope.methods:
            jobs, complete = jobs_of(charges, scope, base, method)
            if complete:
                continue
            there = set(zip(jobs["stage"], jobs["domain"], jobs["kind"], strict=True))
            targets += [
                f"costs/{stage}/{base}/{method}.json"
                for stage in ("merge", *(["tune"] if method in scope.tuned else []))
                if (stage, "", "") not in there
            ]
            targets += [
                f"costs/vectors/{base}/{domain}.json" if kind == "spectrum" else f"costs/statistics/{base}/{domain}/{kind}.json"
                for kind in scope.statistics.get(method, ())
                for domain in scope.domains
                if ("statistics", domain, kind) not in there
            ]
    return list(dict.fromkeys(targets))
