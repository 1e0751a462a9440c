"""Which method should I use? Two to five sentences from the headline table, or a plain word that it cannot be said."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from mergebench.analysis.labels import title
from mergebench.analysis.scope import Scope

OVERALL = "Overall"  # as the tables call the mean over the bases
NOTHING = "No method has all its scores yet, so this report cannot say which one to use."
_LISTED = 4


@dataclass(frozen=True)
class Standing:
    """A method in the headline table: percentages, and seconds per base; None for what is not known."""

    method: str
    performance: float
    error: float | None
    retention: float | None
    algorithm: float | None
    validation: float | None
    best_group: str

    @property
    def seconds(self) -> float | None:
        """Of algorithm and validation."""
        return None if self.algorithm is None or self.validation is None else self.algorithm + self.validation


def advice(headline: Path | None, scope: Scope) -> list[str]:
    """Sentences in the order of their weight.

    Args:
        headline: the table's CSV; None where it was not made.
        scope: the methods and bases of the campaign.
    """
    rows = _rows(headline) if headline is not None else []
    found = _standings(rows, scope)
    if not found:
        return [NOTHING, *_single_bases(rows, scope)]
    best = max(found, key=lambda each: each.performance)
    where = f"Over {len(scope.bases)} bases" if len(scope.bases) > 1 else f"On {scope.bases[0]}"
    sentences = [
        *_first(found, best, where),
        *_consistency(rows, scope, best),
        *_price(found, best),
        *_memory(found, best),
    ]
    absent = [method for method in scope.methods if method not in {each.method for each in found}]
    if absent:
        sentences.append(f"Not compared, because scores are missing: {_listed([title(method) for method in absent], len(absent))}.")
    return sentences


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _standings(rows: list[dict[str, str]], scope: Scope) -> list[Standing]:
    """The methods with a performance over all bases, in the order of the campaign."""
    place = OVERALL if len(scope.bases) > 1 else scope.bases[0]
    found = []
    for method in scope.methods:
        mine = [row for row in rows if row.get("method") == method]
        whole = next((row for row in mine if row.get("base") == place), {})
        performance = _number(whole, "normalised_performance")
        if performance is not None:
            here = [row for row in mine if row.get("base") in scope.bases]
            algorithm, validation = (_mean([_number(row, f"{part}_seconds") for row in here]) for part in ("algorithm", "validation"))
            error, retention = _number(whole, "standard_error"), _number(whole, "retention")
            found.append(Standing(method, performance, error, retention, algorithm, validation, whole.get("best_group", "n/a")))
    return found


def _first(found: list[Standing], best: Standing, where: str) -> list[str]:
    """Who leads, and whether that means anything."""
    error = f" ± {best.error:.1f}" if best.error is not None else ""
    reached = f"{best.performance:.1f}{error} % of the specialists' scores, averaged over the domains"
    lead = f"{where}, {title(best.method)} comes out first: {reached}."
    others = len(found) - 1
    group = [each for each in found if each.best_group == "yes" and each is not best]
    if not others:
        return [lead, "It is the only method with all its scores, so it is compared with nothing."]
    if best.best_group != "yes":
        return [lead, "Whether the others are worse cannot be tested: outcomes of single items are missing."]
    if len(group) == others:
        nothing = f"{where}, no method can be separated from the one with the highest scores, {title(best.method)}, at 5 %."
        return [nothing, f"It reaches {reached}. Choose by cost and by what is forgotten."]
    if group:
        names = _listed([title(each.method) for each in group], len(group))
        return [lead, f"It cannot be separated from {names} at 5 %; the remaining {others - len(group)} methods are worse."]
    return [lead, f"The other {others} methods are worse on the same items, at 5 % and corrected for the number of comparisons (Holm)."]


def _consistency(rows: list[dict[str, str]], scope: Scope, best: Standing) -> list[str]:
    """On how many bases the best method is among the best of the base."""
    if len(scope.bases) < 2 or best.best_group != "yes":
        return []
    groups = {base: [r["method"] for r in rows if r.get("base") == base and r.get("best_group") == "yes"] for base in scope.bases}
    count = sum(best.method in group for group in groups.values())
    others = [
        f"{base}: {_listed([title(m) for m in group], _LISTED)}" for base, group in groups.items() if group and best.method not in group
    ]
    where = f"; elsewhere others lead ({'; '.join(others[:_LISTED])})" if others else ""
    return [f"It is in the best group on {count} of {len(scope.bases)} bases{where}. Other bases may rank the methods otherwise."]


def _price(found: list[Standing], best: Standing) -> list[str]:
    priced = [each for each in found if each.seconds is not None]
    if best.seconds is None:
        return ["What it costs is not known yet."]
    tuning = f"{_duration(best.validation)} of it to tune" if best.validation else "nothing of it to tune"
    sentences = [f"It costs {_duration(best.seconds)} per base, {tuning}."]
    equal = [each for each in priced if each is best or (best.best_group == "yes" and each.best_group == "yes")]
    cheapest = min(equal, key=lambda each: (each.seconds, each.method))
    if cheapest is not best:
        sentences.append(f"The cheapest method that is not separated from it is {title(cheapest.method)}: {_duration(cheapest.seconds)}.")
    bare = min(priced, key=lambda each: (each.seconds, each.method))
    if bare not in (best, cheapest):
        sentences.append(
            f"The cheapest of all, {title(bare.method)}, takes {_duration(bare.seconds)} and reaches {bare.performance:.1f} %."
        )
    return sentences


def _memory(found: list[Standing], best: Standing) -> list[str]:
    """What is left of the base's other abilities."""
    if best.retention is None:
        return []
    kept = f"It keeps {best.retention:.1f} % of the untouched base's scores on the forgetting benchmarks"
    known = [each for each in found if each.retention is not None]
    most = max(known, key=lambda each: (each.retention or 0.0, each is best))
    rival = (
        f"; {title(most.method)} keeps most ({most.retention:.1f} %, at {most.performance:.1f} % performance)" if most is not best else ""
    )
    return [f"{kept}{rival}."]


def _single_bases(rows: list[dict[str, str]], scope: Scope) -> list[str]:
    """The leaders of bases that have scores, where not all have."""
    if len(scope.bases) < 2:
        return []
    leaders = []
    for base in scope.bases:
        mine = [row for row in rows if row.get("base") == base and row.get("method") in scope.methods]
        known = [(value, row["method"]) for row in mine if (value := _number(row, "normalised_performance")) is not None]
        if known:
            value, method = max(known)
            leaders.append(f"{base}: {title(method)} ({value:.1f} %) of {len(known)} scored methods")
    return [f"So far the highest performance is, on {'; '.join(leaders)}."] if leaders else []


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _number(row: dict[str, str], column: str) -> float | None:
    try:
        return float(row[column])
    except (KeyError, ValueError):
        return None


def _listed(names: list[str], most: int) -> str:
    """``a, b and c``; of many the first."""
    shown = names[:most]
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def _duration(seconds: float | None) -> str:
    value = seconds or 0.0
    if value < 100:
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"
