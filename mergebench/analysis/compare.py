"""Two campaigns, or two models, on the same items: `mergebench compare`.

Scores of the same base, model and benchmark (or of the two models that were named) are paired. Their items are matched by id and
resampled together, each run is normalised in every draw by its own specialists and base, and the differences B - A of the draws give
intervals and p-values: the same resampling, normalisation and tests as those of the tables (`resampling`, `uncertainty`,
`comparisons`).

Each level (all domains, single domains, benchmarks) is one family of Holm's correction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mergebench import catalogue
from mergebench.analysis.comparisons import ALPHA, Difference, difference, holm
from mergebench.analysis.labels import BASE, MERGED_PREFIX, MULTITASK, SPECIALIST_PREFIX, model_title
from mergebench.analysis.normalise import LEFT_OUT, left_out, performance_cells, retention_cells
from mergebench.analysis.opened import Run, benchmark_entries, in_order
from mergebench.analysis.paired_scores import AggregateOf, Side, resample, share_references
from mergebench.analysis.pairing import (
    Matches,
    Options,
    Pair,
    PairOfScores,
    Progress,
    asked_pairs,
    incomparable,
    is_reference,
    match_items,
    only_in,
    refuse,
    shared_benchmarks,
)  # fmt: skip
from mergebench.analysis.remarks import PERFORMANCE, RETENTION, remarks
from mergebench.analysis.resampling import RESAMPLES
from mergebench.analysis.scope import FORGETTING, IN_DOMAIN, Benchmark, Scope
from mergebench.analysis.uncertainty import ALL_BASES, ALL_DOMAINS, Draws, Where, carry
from mergebench.errors import MergebenchError

SCORE = "score"
METHOD, DOMAIN, BENCHMARK = "method", "domain", "benchmark"
BETTER, WORSE, UNDECIDED, SAME = "better", "worse", "undecided", "no difference"
NO_INTERVAL, MISSING = "no interval", "missing"
COLUMNS = [
    "level", "measure", "base", "model_a", "model_b", "domain", "benchmark", "a", "b", "difference", "low", "high", "p", "p_holm",
    "verdict", "items", "items_a", "items_b", "gained", "lost",
]  # fmt: skip
FEWEST = 10
"""A benchmark with fewer common items has no interval: the draws of so few say little about others."""

Counts = dict[PairOfScores, int]
"""On how many clusters of items each pair differs."""

_CELLS = {PERFORMANCE: performance_cells, RETENTION: retention_cells}
_ROLES = {PERFORMANCE: IN_DOMAIN, RETENTION: FORGETTING}


@dataclass(frozen=True)
class Comparison:
    """Differences B - A and what has to be known with them.

    Attributes:
        a, b: the runs.
        frame: one row per difference, with `COLUMNS`: `level` method (all domains), domain or benchmark; `measure` performance,
            retention or score; a, b, difference, low, high in percentage points (NaN: missing, or no interval); `verdict`.
            `items`, of benchmarks: how many both have scored, and each; `gained` and `lost`: on how many B is better and worse.
        bases: what was compared.
        notes: what the reader must know, in sentences, beside `warnings`.
        only_a, only_b: what exists in one run only.
    """

    a: Run
    b: Run
    options: Options
    frame: pd.DataFrame
    bases: tuple[str, ...]
    notes: list[str]
    only_a: list[str]
    only_b: list[str]

    @property
    def one_pair(self) -> bool:
        """Whether two models were compared, rather than all models of two runs."""
        return self.a.model is not None

    @property
    def warnings(self) -> list[str]:
        """What the tables of the runs warn of."""
        return [f"{name}: {warning}" for name, run in (("A", self.a), ("B", self.b)) for warning in run.warnings]


def compare_runs(a: Run, b: Run, options: Options, aggregate_of: AggregateOf, progress: Progress | None = None) -> Comparison:
    """Compare everything that both runs have scored, or their two models.

    Args:
        a, b: of `opened.open_run`; both with a model, or both without.
        options: see there.
        aggregate_of: how outcomes of items become the score of a benchmark of the catalogue; one of `items.AGGREGATES`.
        progress: told how many of how many benchmarks are done, and the one that comes.

    Raises:
        MergebenchError: the runs have nothing in common, their scores cannot be compared, or their files are damaged.
    """
    if (a.model is None) != (b.model is None):
        raise MergebenchError(f"{a.name} and {b.name}: give RUN RUN to compare all models, or RUN:METHOD RUN:METHOD to compare two.")
    if options.by_first and b.model is not None and is_reference(b.model):
        raise MergebenchError(f"{b.name} is what scores are normalised by, so that it cannot be normalised by the specialists of A.")
    bases = tuple(base for base in a.bases if base in b.bases)
    if not bases:
        raise MergebenchError(f"{a.name} and {b.name} have no base in common: {', '.join(a.bases)} and {', '.join(b.bases)}.")
    asked = asked_pairs(a, b, bases)
    references = [model for model in in_order({*a.models(bases), *b.models(bases)}) if is_reference(model)]
    supports = [(base, model, model) for base in bases for model in references if a.has(base, model) and b.has(base, model)]
    pairs = list(dict.fromkeys([*asked, *supports]))

    entries = benchmark_entries((a, b))
    shared = shared_benchmarks(a, b, asked)
    names = [name for name in entries.index if name in shared]
    if not names:
        raise MergebenchError(f"{a.name} and {b.name} have no benchmark in common on which both have scored the same models.")
    matches = match_items(a, b, pairs, names, progress)
    found = incomparable(a, b, pairs, names, matches)
    said = refuse(a, b, found, options)
    dropped = {name for kind, each in found.items() if kind not in options.allowed for name in each}
    disjoint = sorted({name for (*_, name), one in matches.items() if not one.items}.difference(dropped))
    said += [f"Left out, because no item is in common: {', '.join(disjoint)}."] if disjoint else []
    dropped.update(disjoint)
    names = [name for name in names if name not in dropped]
    if not names:
        raise MergebenchError(f"{a.name} and {b.name} have no benchmark left to compare: {', '.join(sorted(dropped))} differ.")

    sides = [Side("A", a, _models(asked, references, 1)), Side("B", b, _models(asked, references, 2))]
    models = in_order({*sides[0].models, *sides[1].models})
    domains = tuple(name for name in dict.fromkeys([*catalogue.domains(), *entries["domain"]]) if _measures(entries.loc[names], name))
    scope = Scope(
        bases=bases,
        methods=tuple(model.removeprefix(MERGED_PREFIX) for model in models if model.startswith(MERGED_PREFIX)),
        domains=domains,
        benchmarks=tuple(Benchmark(name, str(entries.at[name, "domain"]), str(entries.at[name, "role"]), name, "") for name in names),
        tuned=(),
        statistics={},
        multitask=MULTITASK in models,
    )
    counts: Counts = {}
    for done, name in enumerate(names):
        if progress:
            progress(len(names) + done, 2 * len(names), name)
        counts |= resample(name, sides, bases, pairs, matches, aggregate_of, RESAMPLES)
    single = list(_benchmarks(sides, asked, names, matches, counts))
    if options.by_first:
        share_references(sides, references)
    rows, cells = [], {}
    for measure in _CELLS:
        cells[measure], draws = _carried(measure, sides, scope)
        reported = [pair for pair in asked if a.model or not _trivial(pair, measure, options)]
        counted = _counted(cells[measure][0], counts, by_first=options.by_first)
        rows += list(_aggregates(measure, draws, scope, reported, sides, counted))
    frame = _judged(pd.DataFrame([*rows, *single], columns=COLUMNS))
    return Comparison(
        a,
        b,
        options,
        frame,
        bases,
        [*said, *remarks(sides, cells, scope, asked, matches)],
        only_in(a, b, bases, [pair[:2] for pair in asked], [pair[::2] for pair in asked], entries),
        only_in(b, a, bases, [pair[::2] for pair in asked], [pair[:2] for pair in asked], entries),
    )


def failures(found: Comparison, percent: float) -> list[str]:
    """What is worse in B by more than `percent` points, in words: means over all domains of merged and multitask models.

    A difference that has an interval must also be decided; one that has none counts as it is. What A has and B lacks counts too.
    """
    merged = found.frame["model_b"].str.startswith(MERGED_PREFIX) | (found.frame["model_b"] == MULTITASK) | found.one_pair
    rows = found.frame[merged & (found.frame["level"] == METHOD)]
    if rows.empty:  # of benchmarks without specialists or base there are no means
        rows = found.frame[merged & (found.frame["level"] == BENCHMARK)]
    lower = (rows["difference"] < -percent) & rows["verdict"].isin([WORSE, NO_INTERVAL])
    said = [f"{_mean_of(row)} is {-row.difference:.1f} points lower in B" for row in rows[lower].itertuples()]
    said += [f"{_mean_of(row)} is missing in B" for row in rows[rows["a"].notna() & rows["b"].isna()].itertuples()]
    return said + [f"{each} is only in A" for each in found.only_a if not each.startswith("scores/")]


def _mean_of(row: Any) -> str:
    return f"{row.benchmark or row.measure} of {model_title(row.model_b)} ({row.base})"


def _models(asked: list[Pair], references: list[str], position: int) -> tuple[str, ...]:
    return in_order({*(pair[position] for pair in asked), *references})


def _measures(entries: pd.DataFrame, domain: str) -> bool:
    return bool(((entries["domain"] == domain) & (entries["role"] == IN_DOMAIN)).any())


def _carried(measure: str, sides: list[Side], scope: Scope) -> tuple[list[pd.DataFrame], list[Draws]]:
    """Cells and draws of both sides. A benchmark counts where it counts in both, so that both means are over the same."""
    cells = []
    for side in sides:
        rows = [(*key, value, np.nan) for key, value in side.values.items()]
        cells.append(_CELLS[measure](pd.DataFrame(rows, columns=["base", "model", "benchmark", "value", "standard_error"]), scope))
    gone = {pair for each in cells for pair in left_out(each)}
    for each in cells:
        each.loc[[pair in gone for pair in zip(each["base"], each["benchmark"], strict=True)], "state"] = LEFT_OUT
    return cells, [carry(each, side.draws, RESAMPLES) for each, side in zip(cells, sides, strict=True)]


def _trivial(pair: Pair, measure: str, options: Options) -> bool:
    """Whether the means of a whole run say nothing of a pair: specialists are references, and a base keeps 100 % of itself."""
    _, model, _ = pair
    return model.startswith(SPECIALIST_PREFIX) or (model == BASE and (measure == RETENTION or options.by_first))


def _counted(cells: pd.DataFrame, counts: Counts, *, by_first: bool) -> dict[tuple[Pair, str], int]:
    """Add disagreements up over the benchmarks that count, by pair and domain.

    Where each run is normalised by its own specialists and bases, theirs count too: of the merged models and of what they are
    normalised by, those that differ on more clusters, which is at most as many as those on which any of them do.
    """
    where = cells.loc[cells["state"] != LEFT_OUT, ["base", "domain", "benchmark", "reference"]].drop_duplicates()
    found: dict[tuple[Pair, str], int] = {}
    for base, domain, name, reference in where.itertuples(index=False, name=None):
        shared = 0 if by_first else counts.get((base, reference, reference, name), 0)
        for pair in [key[:3] for key in counts if key[0] == base and key[3] == name]:
            most = max(counts[(*pair, name)], shared)
            for place in (domain, ALL_DOMAINS):
                for whole in (pair, (ALL_BASES, *pair[1:])):
                    found[whole, place] = found.get((whole, place), 0) + most
    return found


def _aggregates(
    measure: str, draws: list[Draws], scope: Scope, pairs: list[Pair], sides: list[Side], counted: dict[tuple[Pair, str], int]
) -> Iterator[tuple[object, ...]]:
    """Rows of all domains, and of single ones, by base and over bases."""
    domains = [ALL_DOMAINS, *scope.domains] if measure == PERFORMANCE else [ALL_DOMAINS]
    everywhere = [(ALL_BASES, *models) for models in dict.fromkeys(pair[1:] for pair in pairs)] if len(scope.bases) > 1 else []
    benchmarks = {benchmark.name for benchmark in scope.of_role(_ROLES[measure])}
    for base, one, other in sorted([*pairs, *everywhere], key=lambda pair: [*scope.bases, ALL_BASES].index(pair[0])):
        bases = scope.bases if base == ALL_BASES else (base,)
        if not any(_scored(side, bases, model, benchmarks) for side, model in zip(sides, (one, other), strict=True)):
            continue
        for domain in domains:
            first, second = draws[0].get(Where(base, one, domain)), draws[1].get(Where(base, other, domain))
            if first is not None and second is not None:
                level = METHOD if domain == ALL_DOMAINS else DOMAIN
                tested = difference(second, first, counted.get(((base, one, other), domain), 0))
                yield (level, measure, base, one, other, domain, "", first[0], second[0], *tested, np.nan, "", *[np.nan] * 5)


def _scored(side: Side, bases: Collection[str], model: str, benchmarks: Collection[str]) -> bool:
    return any((base, model, name) in side.values for base in bases for name in benchmarks)


def _benchmarks(
    sides: list[Side], pairs: list[Pair], names: list[str], matches: Matches, disagreements: Counts
) -> Iterator[tuple[object, ...]]:
    for base, one, other in pairs:
        for name in names:
            keys = (base, one, name), (base, other, name)
            first, second = sides[0].run.values.get(keys[0]), sides[1].run.values.get(keys[1])
            if first is None or second is None:
                continue
            domain = sides[0].run.records[keys[0]]["domain"]
            matched = matches.get((base, one, other, name))
            counts: list[float] = [np.nan] * 5
            tested = Difference(100 * (second - first), np.nan, np.nan, np.nan)
            if matched is not None:
                first, second = sides[0].values[keys[0]], sides[1].values[keys[1]]
                counts = [matched.items, matched.items_a, matched.items_b, matched.gained, matched.lost]
                drawn = [100 * np.append(value, side.draws[key]) for value, side, key in zip((first, second), sides, keys, strict=True)]
                tested = difference(drawn[1], drawn[0], disagreements[base, one, other, name])
                if matched.items < FEWEST:
                    tested = Difference(tested.value, np.nan, np.nan, np.nan)
            yield (BENCHMARK, SCORE, base, one, other, domain, name, 100 * first, 100 * second, *tested, np.nan, "", *counts)


def _judged(frame: pd.DataFrame) -> pd.DataFrame:
    """Correct the p-values, one family per level, and say what follows."""
    for _, rows in frame.groupby("level", sort=False):
        known = rows.index[rows["p"].notna()]
        frame.loc[known, "p_holm"] = holm(frame.loc[known, "p"].tolist())
    frame["verdict"] = [_verdict(row) for row in frame.itertuples()]
    return frame


def _verdict(row: object) -> str:
    value, low, high, p = (float(getattr(row, name)) for name in ("difference", "low", "high", "p_holm"))
    if np.isnan(value):
        return MISSING
    if np.isnan(p):
        return NO_INTERVAL
    if value == low == high == 0:
        return SAME
    return UNDECIDED if p >= ALPHA else BETTER if value > 0 else WORSE
