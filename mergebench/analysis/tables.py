"""The result tables: every one a pure function of the evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mergebench.analysis.comparisons import ALPHA, best_group, compare
from mergebench.analysis.costs import COST_COLUMNS
from mergebench.analysis.disagreement import between_methods
from mergebench.analysis.efficiency import by_rule
from mergebench.analysis.fidelity import EVERY_DOMAIN, EVERY_MODEL, FEWEST, MERGED, correlations, points
from mergebench.analysis.interference import Interference, read_interference
from mergebench.analysis.labels import (
    BASE,
    BEST_SPECIALIST,
    MERGED_PREFIX,
    RANDOM_DIRECTION,
    model_of,
    model_title,
    signed,
    title,
)
from mergebench.analysis.normalise import (
    FLOOR,
    domain_scores,
    domain_shares,
    left_out,
    missing_targets,
    over_bases,
    performance_cells,
    recovery_cells,
    retention_cells,
    summarise,
)
from mergebench.analysis.resampling import RESAMPLES, Resamples, resampled_scores
from mergebench.analysis.scope import FORGETTING, IN_DOMAIN, SURROGATE, Scope
from mergebench.analysis.seeds import by_seed, mean_draws, spread
from mergebench.analysis.spending import spending
from mergebench.analysis.uncertainty import ALL_DOMAINS, Draws, Where, carry

OVERALL = "Overall"
NOT_APPLICABLE = "n/a"
MARK = " †"
_LISTED = 12


@dataclass(frozen=True)
class Table:
    """A table as data: `frame` goes to CSV; `display` (default: `frame`) to Markdown, with the notes under it.

    Floats are values, NaN is a missing one; strings are printed as they are. `decimals` says how many a column shows in
    Markdown (1 if not given); one with 0 holds whole numbers, in CSV too. Of the first `names` columns, those of strings are aligned
    left.
    """

    name: str
    frame: pd.DataFrame
    notes: list[str]
    display: pd.DataFrame | None = None
    headings: dict[str, str] = field(default_factory=dict)
    decimals: dict[str, int] = field(default_factory=dict)
    names: int = 2


@dataclass(frozen=True)
class Evidence:
    """What the tables and figures are made from, with the summaries that several of them share."""

    scope: Scope
    scores: pd.DataFrame
    costs: pd.DataFrame
    jobs: pd.DataFrame
    losses: pd.DataFrame
    surrogates: pd.DataFrame
    winners: pd.DataFrame
    items: Mapping[tuple[str, str, str], Path] = field(default_factory=dict)
    charges: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COST_COLUMNS))
    prepared: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    interference_files: Sequence[Path] = ()
    progress: Callable[[int, int], None] | None = None  # told how many bytes of items of how many have been resampled

    @cached_property
    def interference(self) -> Interference:
        """How the task vectors of each base relate to each other."""
        return read_interference(self.interference_files, self.scope)

    @cached_property
    def performance(self) -> pd.DataFrame:
        """Cells of normalised performance."""
        return performance_cells(self.scores, self.scope)

    @cached_property
    def retention(self) -> pd.DataFrame:
        """Cells of retention."""
        return retention_cells(self.scores, self.scope)

    @cached_property
    def recovery(self) -> pd.DataFrame:
        """Cells of base-anchored recovery."""
        return recovery_cells(self.scores, self.scope)

    @cached_property
    def resamples(self) -> Resamples:
        """What the items say, of the scores whose items are there."""
        return resampled_scores(self.scores, self.scope, self.items, progress=self.progress)

    @property
    def resampled(self) -> dict[tuple[str, str, str], np.ndarray]:
        """Scores on resampled items by base, model and benchmark, for those whose items are there."""
        return self.resamples.scores

    @cached_property
    def draws(self) -> dict[str, Draws]:
        """Performance, retention and recovery on resampled items, of methods with several seeds on resampled seeds too."""
        measures = {"performance": self.performance, "retention": self.retention, "recovery": self.recovery}
        resampled = mean_draws(self.resampled, self.scope)
        return {measure: carry(cells, resampled, RESAMPLES) for measure, cells in measures.items()}

    @cached_property
    def seeds(self) -> pd.DataFrame:
        """Performance, retention and recovery of every seed of the methods and controls that draw random numbers."""
        return by_seed(self.scores, self.scope)

    def method_draws(self, measure: str, base: str) -> dict[str, np.ndarray]:
        """A measure's draws of the methods on one base or overall; a method without a score has none."""
        found = {method: self.draws[measure].get(Where(base, model_of(method), ALL_DOMAINS)) for method in self.scope.methods}
        return {method: each for method, each in found.items() if each is not None}

    @cached_property
    def comparisons(self) -> dict[tuple[str, str], pd.DataFrame]:
        """Paired tests of every two methods, by measure and base."""
        found = {}
        for measure, cells in (("performance", self.performance), ("retention", self.retention)):
            for base in (*self.scope.bases, OVERALL):
                counts = between_methods(self.resamples.disagreements, cells, self.scope, None if base == OVERALL else base)
                found[measure, base] = compare(self.method_draws(measure, base), counts)
        return found

    @cached_property
    def best_groups(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Methods that are not separable from the best, by measure and base; none where no items are known."""
        return {where: best_group(self.method_draws(*where), pairs) for where, pairs in self.comparisons.items()}

    @cached_property
    def spending(self) -> pd.DataFrame:
        """Hours, memory, energy and price of every method, by base and over the bases."""
        return spending(self.charges, self.scope)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Percentages indexed by (base or "Overall", method or control), in campaign order.

        Columns: performance, performance_se, retention, retention_se, recovery, recovery_se.
        """
        parts = {}
        for name, cells in (
            ("performance", self.performance),
            ("retention", self.retention),
            ("recovery", self.recovery),
        ):
            each = summarise(cells)
            overall = pd.concat({OVERALL: over_bases(each)}, names=["base"])
            both = pd.concat([each, overall]) * 100
            parts[name] = both["share"]
            parts[f"{name}_se"] = both["standard_error"]
        rows = [(base, name) for base in (*self.scope.bases, OVERALL) for name in self.scope.compared]
        self._add_spread(parts)
        models = pd.MultiIndex.from_tuples([(base, model_of(name)) for base, name in rows])
        frame = pd.DataFrame({name: part.reindex(models).to_numpy() for name, part in parts.items()})
        frame.index = pd.MultiIndex.from_tuples(rows, names=["base", "method"])
        return frame

    def _add_spread(self, parts: dict[str, pd.Series]) -> None:
        """Widen the standard errors of methods with several seeds by that of the mean over seeds, deviation / sqrt(n)."""
        if not self.scope.several:
            return
        found = spread(self.seeds)
        for measure in ("performance", "retention", "recovery"):
            errors = parts[f"{measure}_se"]
            overall = pd.Series(0.0, index=found.index.unique("method"))
            for (base, method), row in found[measure].iterrows():
                if base == OVERALL or row["n"] < 2:
                    continue
                squared = row["deviation"] ** 2 / row["n"]
                overall[method] += squared / len(self.scope.bases) ** 2
                errors[base, model_of(method)] = np.hypot(errors[base, model_of(method)], np.sqrt(squared))
            for method in overall.index:
                errors[OVERALL, model_of(method)] = np.hypot(errors[OVERALL, model_of(method)], np.sqrt(overall[method]))


def normalised_performance(evidence: Evidence) -> Table:
    """Layout of the paper's Table 7, with the untouched base, the best single specialist, a random direction and the multitask model as
    controls."""
    frame = _wide(evidence, "performance")
    best = best_specialists(evidence)
    frame.insert(2, BEST_SPECIALIST, [*best["share"], best["share"].mean(skipna=False)])
    which = [f"{model_title(model)} ({base})" for base, model in best["model"].items() if isinstance(model, str)]
    return Table(
        "normalised_performance",
        frame,
        [
            "Rule: score of the model / score of the domain's specialist, per benchmark; unweighted mean over the benchmarks of "
            "a domain, then over the domains, then over the bases (Overall). 100 = as good as five specialists.",
            *([f"Best single specialist: {', '.join(which)}; chosen for this number, which flatters it."] if which else []),
            *_control_notes(evidence),
            *_mark_note(evidence, "performance"),
            *_gaps(evidence, evidence.performance, "its specialist scores"),
        ],
        display=_marked(evidence, frame, "performance"),
        headings=_column_titles(evidence),
    )


def forgetting(evidence: Evidence) -> Table:
    """Layout of the paper's Table 8: what is left of the base's general abilities."""
    frame = _wide(evidence, "retention")
    return Table(
        "forgetting",
        frame,
        [
            "Rule: score of the model / score of its base, per forgetting benchmark; unweighted mean over "
            f"{', '.join(benchmark.title for benchmark in evidence.scope.of_role(FORGETTING))}, then over the bases (Overall). "
            "100 = nothing forgotten.",
            *_control_notes(evidence),
            *_mark_note(evidence, "retention"),
            *_gaps(evidence, evidence.retention, "the base scores"),
        ],
        display=_marked(evidence, frame, "retention"),
        headings=_column_titles(evidence),
    )


def runtime(evidence: Evidence) -> Table:
    """Section 4.3: what each method cost on each base."""
    frame = evidence.costs.reset_index()
    frame.insert(4, "total_seconds", frame["algorithm_seconds"] + frame["validation_seconds"])
    return Table(
        "runtime",
        frame,
        [
            "Rule: sums of seconds over the jobs of the method on that base; the highest of their peaks.",
            "Algorithm: merging, and the statistics that the method reads (Fisher, Gram matrices, masks). Validation: scoring "
            "candidates on the surrogates. Loading models and starting processes are in neither. Peak memory: resident memory "
            "of the method's largest job.",
            *_unknown_costs(evidence),
        ],
        display=frame.assign(method=frame["method"].map(title)),
        headings={
            "base": "Base",
            "method": "Method",
            "algorithm_seconds": "Algorithm (s)",
            "validation_seconds": "Validation (s)",
            "total_seconds": "Total (s)",
            "peak_memory_mib": "Peak memory (MiB)",
            "candidates": "Candidates",
        },
        decimals={"peak_memory_mib": 0, "candidates": 0},
    )


def specialisation(evidence: Evidence) -> Table:
    """Does a specialist know its own domain, and only that? Scores and gains of the base and its specialists."""
    scope = evidence.scope
    points = domain_scores(evidence.scores, scope) * 100
    shown = (BASE, *scope.specialists)
    rows = [(base, model) for base in scope.bases for model in shown]
    points = points.reindex(rows)
    gains = points - points.loc[[(base, BASE) for base, _ in rows]].to_numpy()
    frame = pd.concat([points, gains.add_prefix("gain_")], axis=1).reset_index()
    display = frame[["base", "model"]].assign(model=frame["model"].map(model_title))
    for domain in scope.domains:
        display[domain] = [
            _score_and_gain(score, gain, model)
            for score, gain, model in zip(frame[domain], frame[f"gain_{domain}"], frame["model"], strict=True)
        ]
    return Table(
        "specialisation",
        frame,
        [
            "Rule: unweighted mean of the raw scores over the benchmarks of a domain, times 100; the gain is the difference to "
            "the base. A good set of specialists gains on the diagonal and changes little elsewhere.",
            *missing_note(missing_targets(evidence.performance, shown)),
        ],
        display=display,
        headings={"base": "Base", "model": "Model", **{domain: title(domain) for domain in scope.domains}},
    )


def scores(evidence: Evidence) -> Table:
    """Raw scores: long in CSV (with standard errors and item counts), one row per benchmark in Markdown."""
    scope = evidence.scope
    benchmarks = [each for role in (IN_DOMAIN, FORGETTING, SURROGATE) for each in scope.of_role(role)]
    known = evidence.scores.set_index(["base", "model", "benchmark"])
    grid = pd.DataFrame(
        [
            (base, model, each.name, each.role, each.domain)
            for base in scope.bases
            for model in scope.scored
            for each in benchmarks
            if scope.expects(model, each) or (base, model, each.name) in known.index
        ],
        columns=["base", "model", "benchmark", "role", "domain"],
    )
    found = known.reindex(pd.MultiIndex.from_frame(grid[["base", "model", "benchmark"]]))
    for column in ("metric", "value", "standard_error", "n"):
        grid[column] = found[column].to_numpy()
    gaps = grid[grid["value"].isna()]
    without_error = grid["standard_error"].isna() & grid["value"].notna()
    shown = [each for each in benchmarks if each.role != SURROGATE]
    order = {"index": [(base, each.name) for base in scope.bases for each in shown], "columns": list(scope.scored)}
    cells = grid.assign(points=grid["value"] * 100, asked=1).set_index(["base", "benchmark", "model"])
    wide = cells["points"].unstack("model").reindex(**order).astype(object)
    wide = wide.where(cells["asked"].unstack("model").reindex(**order).notna(), NOT_APPLICABLE)
    display = wide.rename(columns=model_title).rename_axis(columns=None).reset_index(names=["base", "benchmark"])
    display["benchmark"] = display["benchmark"].map({each.name: each.title for each in benchmarks})
    return Table(
        "scores",
        grid.assign(
            metric=grid["metric"].where(grid["value"].notna(), "missing"),
            standard_error=grid["standard_error"].astype(object).mask(without_error, NOT_APPLICABLE),
        ),
        [
            "Rule: the benchmark's headline metric, times 100. The CSV file has one row per score, in [0, 1], with its standard "
            "error (n/a: the metric has none) and the number of items. Specialists are not scored on the forgetting benchmarks.",
            *missing_note([f"scores/{row.base}/{row.model}/{row.benchmark}.json" for row in gaps.itertuples()]),
        ],
        display=display,
        headings={"base": "Base", "benchmark": "Benchmark"},
        decimals={"n": 0},
    )


def headline(evidence: Evidence) -> Table:
    """The campaign in one table: performance with its uncertainty, recovery, retention and cost of every method."""
    frame = evidence.summary.reset_index().drop(columns=["recovery_se", "retention_se"])
    frame = frame.rename(columns={"performance": "normalised_performance", "performance_se": "standard_error"})
    frame = frame[["base", "method", "normalised_performance", "standard_error", "recovery", "retention"]]
    costs = evidence.costs.reindex(pd.MultiIndex.from_frame(frame[["base", "method"]]))
    unpriced = ~frame["method"].isin(evidence.scope.methods) | (frame["base"] == OVERALL)
    for column in ("algorithm_seconds", "validation_seconds", "peak_memory_mib"):
        frame[column] = pd.Series(costs[column].to_numpy(), dtype=object).mask(unpriced, NOT_APPLICABLE)
    frame["best_group"] = [_in_best_group(evidence, "performance", *row) for row in zip(frame["base"], frame["method"], strict=True)]
    if len(evidence.scope.bases) == 1:
        frame = frame[frame["base"] != OVERALL]
    display = frame.drop(columns=["standard_error", "best_group"]).assign(
        method=frame["method"].map(title),
        normalised_performance=[
            _with_error(value, error) + (MARK if group == "yes" else "")
            for value, error, group in zip(frame["normalised_performance"], frame["standard_error"], frame["best_group"], strict=True)
        ],
    )
    return Table(
        "headline",
        frame,
        [
            "Rule: unweighted means over benchmarks, then domains, then bases. Normalised performance: % of the specialists, ± one "
            "standard error from the number of scored items (delta method; merged models and specialists).",
            "Recovery: (model - base) / (specialist - base), same means: 0 = untouched base, 100 = specialists. "
            "Retention: % of the base's score on the forgetting benchmarks.",
            *_control_notes(evidence),
            *_mark_note(evidence, "performance"),
            *_gaps(evidence, evidence.performance, "its specialist scores"),
            *_gaps(evidence, evidence.recovery, "its specialist gains", missing=False),
            *_gaps(evidence, evidence.retention, "the base scores"),
            *_unknown_costs(evidence),
        ],
        display=display,
        headings={
            "base": "Base",
            "method": "Method",
            "normalised_performance": "Normalised performance",
            "recovery": "Recovery",
            "retention": "Retention",
            "algorithm_seconds": "Algorithm (s)",
            "validation_seconds": "Validation (s)",
            "peak_memory_mib": "Peak memory (MiB)",
        },
        decimals={"peak_memory_mib": 0},
    )


def tuning(evidence: Evidence) -> Table:
    """What the search of every method has chosen, and how much the objective depends on the seed."""
    scope = evidence.scope
    searched = pd.MultiIndex.from_product([scope.bases, scope.tuned], names=["base", "method"])
    frame = evidence.winners.set_index(["base", "method"]).reindex(searched)
    unsearched = [f"tuning/{base}/{method}/best.yaml" for base, method in frame.index[frame["seeds"].isna()]]
    frame["parameters"] = frame["parameters"].fillna("missing")
    frame[["objective", "spread"]] *= 100
    frame["spread"] = frame["spread"].astype(object).mask(frame["seeds"] == 1, NOT_APPLICABLE)
    frame = frame.reset_index()
    return Table(
        "tuning",
        frame,
        [
            "Rule: the candidate with the highest objective, the unweighted mean over domains of its score on the surrogates, in % of "
            "the domain's specialist; of equal ones the first in the order of the grid. A method that draws random numbers is tuned with "
            "several seeds where `tuning.seeds` says so: the objective is their mean, the spread their standard deviation.",
            "Evaluations: candidates that were scored, each seed counted, a block of items as its share, equal weights once.",
            *missing_note(unsearched),
        ],
        display=frame.assign(method=frame["method"].map(title)),
        headings={
            "base": "Base",
            "method": "Method",
            "parameters": "Chosen",
            "objective": "Objective (%)",
            "seeds": "Seeds",
            "spread": "Spread",
            "candidates": "Candidates",
            "evaluations": "Evaluations",
        },
        decimals={"seeds": 0, "spread": 2, "candidates": 0, "evaluations": 2},
    )


def fidelity(evidence: Evidence) -> Table:
    """Whether the surrogates, on which methods are tuned, rank models as the benchmarks do."""
    scope = evidence.scope
    found = points(evidence.surrogates, performance_cells(evidence.scores, scope.apart()), scope)  # a model, not a mean over seeds
    frame = correlations(found, scope, OVERALL)
    scored = set(found[["base", "domain", "model"]].itertuples(index=False, name=None))
    counted = set(domain_shares(evidence.performance).index.droplevel("model"))
    lacking = [
        (b, m)
        for b in scope.bases
        for m in scope.tuned
        if any((b, d) in counted and (b, d, MERGED_PREFIX + m) not in scored for d in scope.domains)
    ]
    waiting = {base for base, _ in lacking}
    measures = [column for column in frame if column == "n" or column.startswith(("spearman", "kendall"))]
    settled = [not (waiting if base == OVERALL else waiting & {base}) for base in frame["base"]]
    for column in measures:
        unknown = frame[column].isna() & pd.Series(settled, dtype=bool)
        frame[column] = frame[column].astype(object).mask(unknown, NOT_APPLICABLE)
    sets = {MERGED: "Merged, tuned", EVERY_MODEL: "Merged and specialists"}
    display = frame[["base", "models", "domain", "n"]].assign(
        models=frame["models"].map(sets), domain=["All domains" if domain == EVERY_DOMAIN else title(domain) for domain in frame["domain"]]
    )
    for kind in ("spearman", "kendall"):
        display[kind] = frame[kind]
        display[f"{kind}_interval"] = [_interval(low, high) for low, high in zip(frame[f"{kind}_low"], frame[f"{kind}_high"], strict=True)]
    missing = [f"{title(method)} ({base})" for base, method in lacking]
    return Table(
        "fidelity",
        frame,
        [
            "Rule: over the models of a base that were scored on both sides, rank correlation of the surrogate score and the score on "
            "the benchmarks of the domain, both relative to the domain's specialist (All domains: unweighted means over domains). Of a "
            "search, the candidate that became the merged model counts, matched by the digest of its weights. Overall: mean of the bases' "
            "Fisher transforms.",
            f"Brackets: 95 % interval (Bonett and Wright's variances). Below {FEWEST} models nothing is said (n/a). Specialists are far "
            "apart, which raises a correlation; tuning chooses among merged models, which are close together.",
            *_gaps(evidence, evidence.performance, "its specialist scores", missing=False),
            *([f"Not scored on both sides yet: {', '.join(missing[:_LISTED])}{_and_more(missing)}."] if missing else []),
        ],
        display=display,
        headings={
            "base": "Base",
            "models": "Models",
            "domain": "Domain",
            "n": "n",
            "spearman": "Spearman",
            "spearman_interval": "95 %",
            "kendall": "Kendall",
            "kendall_interval": "95 %",
        },
        decimals={"n": 0, "spearman": 2, "kendall": 2},
    )


def efficiency(evidence: Evidence) -> Table:
    """What the jobs of each rule asked for, what they used, and what failed attempts cost."""
    frame = by_rule(evidence.jobs)
    shown = frame.drop(columns=[column for column in frame if column.endswith("_gpus_mean")])
    return Table(
        "efficiency",
        frame.astype(object).where(frame.notna(), NOT_APPLICABLE),
        [
            "Rule: over all jobs of a rule that have succeeded.",
            "Used / requested: mean over jobs of each job's share. Memory: the highest resident memory of a job on a node. Time: of "
            "the attempt that succeeded, from its start to its outputs. GPUs: those that a job saw and computed on.",
            "Failed attempts: those of the jobs that have succeeded since, and the time that they took.",
            "n/a: nothing was requested, as by rules that run where the workflow runs and by jobs that were run by hand.",
        ],
        display=shown.astype(object).where(shown.notna(), NOT_APPLICABLE),
        headings={
            "rule": "Rule",
            "jobs": "Jobs",
            "requested_memory_mib": "Memory requested (MiB)",
            "used_memory_mib_mean": "Memory used, mean",
            "used_memory_mib_max": "Memory used, max",
            "memory_percent": "Memory used / requested (%)",
            "requested_minutes": "Time requested (min)",
            "used_minutes_mean": "Time used, mean",
            "used_minutes_max": "Time used, max",
            "time_percent": "Time used / requested (%)",
            "requested_gpus": "GPUs requested",
            "used_gpus_max": "GPUs used, max",
            "gpu_percent": "GPUs used / requested (%)",
            "failed_attempts": "Failed attempts",
            "lost_minutes": "Time lost (min)",
        },
        decimals=dict.fromkeys(
            (
                "jobs",
                "requested_memory_mib",
                "used_memory_mib_mean",
                "used_memory_mib_max",
                "memory_percent",
                "requested_minutes",
                "time_percent",
                "requested_gpus",
                "used_gpus_max",
                "gpu_percent",
                "failed_attempts",
            ),
            0,
        ),
    )


TABLES: dict[str, Callable[[Evidence], Table]] = {
    "normalised_performance": normalised_performance,
    "forgetting": forgetting,
    "runtime": runtime,
    "specialisation": specialisation,
    "scores": scores,
    "headline": headline,
    "tuning": tuning,
    "fidelity": fidelity,
    "efficiency": efficiency,
}


def _wide(evidence: Evidence, measure: str) -> pd.DataFrame:
    rows = [*evidence.scope.bases, OVERALL]
    wide = evidence.summary[measure].unstack("method").reindex(index=rows, columns=list(evidence.scope.compared))
    return wide.rename_axis(index="base", columns=None).reset_index()


def _column_titles(evidence: Evidence) -> dict[str, str]:
    return {"base": "Base", **{name: title(name) for name in (BEST_SPECIALIST, *evidence.scope.compared)}}


def best_specialists(evidence: Evidence) -> pd.DataFrame:
    """The specialist with the highest normalised performance over all domains, by base in campaign order: `model` and `share` in
    percent, both NaN where a specialist lacks a score."""
    shares = summarise(evidence.performance)["share"].unstack("model")
    shares = 100 * shares.reindex(index=list(evidence.scope.bases), columns=list(evidence.scope.specialists))
    complete = shares.dropna()
    best = pd.DataFrame({"model": complete.idxmax(axis=1), "share": complete.max(axis=1)})
    return best.reindex(list(evidence.scope.bases))


def _in_best_group(evidence: Evidence, measure: str, base: str, method: str) -> str:
    group = evidence.best_groups[measure, base]
    return NOT_APPLICABLE if method not in evidence.scope.methods or not group else "yes" if method in group else "no"


def _marked(evidence: Evidence, frame: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The values as text, those of methods that are not separable from the best of their row with a mark."""
    display = frame.astype(object)
    for position, base in enumerate(frame["base"]):
        for method in evidence.best_groups[measure, base]:
            display.loc[position, method] = f"{frame.loc[position, method]:.1f}{MARK}"
    return display


def _control_notes(evidence: Evidence) -> list[str]:
    """What random directions are, and which numbers are means over seeds."""
    notes = []
    if RANDOM_DIRECTION in evidence.scope.controls:
        notes.append(
            f"{title(RANDOM_DIRECTION)}: every tensor of the base moved as far as Model Soup moves it, at random. A control, not a method."
        )
    several = [f"{title(name)} ({len(models)})" for name, models in evidence.scope.seeds.items() if len(models) > 1]
    if several:
        notes.append(f"Means over seeds: {', '.join(several)}; errors and intervals hold their spread. The table `seeds` has each of them.")
    return notes


def _mark_note(evidence: Evidence, measure: str) -> list[str]:
    if not any(group for (which, _), group in evidence.best_groups.items() if which == measure):
        return []
    return [
        f"{MARK.strip()} Not separable from the best method of its base at {100 * ALPHA:.0f} %: paired on the same items, corrected for "
        "the number of pairs of methods (Holm). The table `uncertainty` has intervals and p-values."
    ]


def _gaps(evidence: Evidence, cells: pd.DataFrame, why: str, *, missing: bool = True) -> list[str]:
    """Notes on what does not count and on what is still to be scored."""
    titles = {each.name: each.title for each in evidence.scope.benchmarks}
    out = [f"{titles[benchmark]} ({base})" for base, benchmark in left_out(cells)]
    notes = [f"Left out, because {why} less than {FLOOR * 100:g} points there: {', '.join(out)}."] if out else []
    if missing:
        models = tuple(model_of(name) for name in evidence.scope.compared)
        notes += missing_note(missing_targets(cells, models))
    return notes


def missing_note(targets: list[str]) -> list[str]:
    """The note that names the files which would fill what a table lacks; none if it lacks nothing."""
    if not targets:
        return []
    return [f"Missing until these are made: {', '.join(f'`{target}`' for target in targets[:_LISTED])}{_and_more(targets)}."]


def _and_more(listed: list[str]) -> str:
    return f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""


def _interval(low: float | str, high: float | str) -> str:
    if isinstance(low, str) or isinstance(high, str):
        return NOT_APPLICABLE
    return "missing" if np.isnan(low) else f"[{low:.2f}, {high:.2f}]"


def _unknown_costs(evidence: Evidence) -> list[str]:
    known = evidence.costs[["algorithm_seconds", "validation_seconds"]].notna().all(axis=1)
    unknown = [f"{title(method)} ({base})" for base, method in evidence.costs.index[~known]]
    return [f"No complete cost records yet: {', '.join(unknown)}."] if unknown else []


def _with_error(value: float, error: float) -> str:
    if np.isnan(value):
        return "missing"
    return f"{value:.1f}" if np.isnan(error) else f"{value:.1f} ± {error:.1f}"


def _score_and_gain(score: float, gain: float, model: str) -> str:
    if np.isnan(score):
        return "missing"
    return f"{score:.1f}" if model == BASE or np.isnan(gain) else f"{score:.1f} ({signed(gain, 1)})"
