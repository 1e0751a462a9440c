"""Tables of what can be concluded: intervals and separability, mean ranks, the paper's claims, agreement with its tables."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from mergebench.analysis.claims import CLAIMS, Results, judge, published_results
from mergebench.analysis.comparisons import ALPHA, best
from mergebench.analysis.crosscheck import AGREEMENT, crosscheck
from mergebench.analysis.labels import MULTITASK, model_of, title
from mergebench.analysis.published import published_names
from mergebench.analysis.ranks import Friedman, friedman
from mergebench.analysis.resampling import RESAMPLES
from mergebench.analysis.tables import MARK, NOT_APPLICABLE, OVERALL, Evidence, Table
from mergebench.analysis.uncertainty import ALL_DOMAINS, intervals

MEASURES = {"performance": "Normalised performance", "retention": "Retention", "recovery": "Recovery"}
COMPARED = ("performance", "retention")
_TRAINING = ("train_specialist", "train_multitask")


def uncertainty(evidence: Evidence) -> Table:
    """Interval of every performance, retention and recovery, and each method's distance to the best of its base."""
    frame = _intervals(evidence)
    for column in _DISTANCE:
        frame[column] = pd.Series(NOT_APPLICABLE, index=frame.index, dtype=object)
    for measure in COMPARED:
        for base in (*evidence.scope.bases, OVERALL):
            _distances(evidence, frame, measure, base)
    return Table(
        "uncertainty",
        frame,
        [
            "Rule: unweighted means over benchmarks, then domains, then bases (Overall), in each resample.",
            f"Intervals: 95 %, percentiles of {RESAMPLES} resamples of the benchmarks' items, drawn with replacement and the same for all "
            "models; every resample is normalised anew, so that the noise of the specialists and of the base is in. What asks about one "
            "thing (a paragraph, a question in several languages) is drawn together. Bases, benchmarks, languages and subjects are taken "
            "as they are, and so is training.",
            "Behind the best: difference to the best method of the base on the same resamples, with its interval, and its p-value after "
            f"Holm's correction over all pairs of methods of that base. † not separable from the best at {100 * ALPHA:.0f} %.",
            *_resampled_seeds(evidence),
            *_without_items(evidence),
        ],
        display=_shown(evidence, frame),
        headings={"base": "Base", "method": "Method"},
    )


def ranks(evidence: Evidence) -> Table:
    """Mean rank of every method over the bases, here and in the paper's tables."""
    tests = rank_tests(evidence)
    methods = list(dict.fromkeys([*evidence.scope.methods, *(method for test in tests.values() for method in test.mean_ranks.index)]))
    frame = pd.DataFrame({"method": methods})
    for name, test in tests.items():
        found = test.mean_ranks.reindex(methods).to_numpy()
        foreign = [method not in test.mean_ranks.index for method in methods]
        frame[name] = pd.Series(found, dtype=object).mask(foreign, NOT_APPLICABLE)
    return Table(
        "ranks",
        frame,
        [
            "Rule: rank of the method within each base (1 = best, ties share), mean over the bases that have all methods.",
            *(f"{RANKED[name]}: {_outcome(test)}" for name, test in tests.items()),
        ],
        display=frame.assign(method=frame["method"].map(title)),
        headings={"method": "Method", **RANKED},
        decimals=dict.fromkeys(tests, 2),
    )


def claims(evidence: Evidence) -> Table:
    """The paper's claims, put to its own tables and to this campaign."""
    published, here = judge(published_results()), judge(own_results(evidence))
    rows = [
        (
            claim.id, claim.section or NOT_APPLICABLE, claim.text, str(published[claim.id]), str(here[claim.id]),
            published[claim.id].numbers, here[claim.id].numbers,
        )
        for claim in CLAIMS
    ]  # fmt: skip
    columns = ["claim", "section", "text", "published", "here", "published_numbers", "here_numbers"]
    return Table(
        "claims",
        pd.DataFrame(rows, columns=columns),
        [
            "Rule: published are the paper's own Tables 7 and 8, here is this campaign; both are judged alike.",
            '"All" and "consistently" mean every cell. A tendency is supported where at least 95 % of the cases show it, mostly from '
            "75 %, and refuted below half. Strong and middle are the first and the second third of the range of mean ranks, weak and "
            "low its lower half. Undecided: the numbers leave it open, or what it needs is not there.",
        ],
        names=len(columns),
        headings=dict(
            zip(columns, ("Claim", "Section", "What it says", "Published", "Here", "Numbers, published", "Numbers, here"), strict=True)
        ),
    )


def agreement(evidence: Evidence) -> Table:
    """Every reproduced cell of Tables 7 and 8 beside the published one."""
    found = _intervals(evidence).set_index(["domain", "measure", "base", "method"])["standard_error"]
    known = pd.to_numeric(found[ALL_DOMAINS], errors="coerce")  # n/a: no items
    here, errors = {}, {}
    for measure in COMPARED:
        here[measure] = _by_base(evidence, measure, with_overall=True)
        bootstrapped = known[measure].unstack("method").reindex(index=here[measure].index, columns=here[measure].columns)
        errors[measure] = bootstrapped.fillna(_by_base(evidence, f"{measure}_se", with_overall=True))
    frame = crosscheck(here, errors)
    names = published_names()
    counts = frame["verdict"].value_counts()
    notes = [
        "Rule: both numbers are unweighted means over benchmarks, then domains, then bases (Overall), in percent.",
        f"Agreeing: within {AGREEMENT:g} point. Within noise: the 95 % interval of the difference holds zero. Its noise is that of the "
        "items, of this campaign and, taken to be as large, of the paper's; training anew is not in it.",
    ]
    if frame.empty:
        notes.append("None of the bases of this campaign is one of the paper's.")
    else:
        notes.append(f"{len(frame)} cells: {', '.join(f'{counts[verdict]} {verdict}' for verdict in counts.index.sort_values())}.")
    known_interval = frame["low"].notna() | frame["here"].isna()
    return Table(
        "crosscheck",
        frame.assign(
            table=frame["table"].astype(str),
            low=frame["low"].astype(object).where(known_interval, NOT_APPLICABLE),
            high=frame["high"].astype(object).where(known_interval, NOT_APPLICABLE),
        ),
        notes,
        display=pd.DataFrame(
            {
                "table": frame["table"].astype(str),
                "base": frame["base"].map(lambda base: names.get(base, base)),
                "method": frame["method"].map(title),
                "published": frame["published"],
                "here": frame["here"],
                "difference": [
                    _with_interval(*row, sign=True) for row in frame[["difference", "low", "high"]].itertuples(index=False, name=None)
                ],
                "verdict": frame["verdict"],
            }
        ),
        headings={
            "table": "Table", "base": "Base", "method": "Method", "published": "Published", "here": "Here", "difference": "Difference",
            "verdict": "Verdict",
        },
        names=3,
    )  # fmt: skip


TABLES: dict[str, Callable[[Evidence], Table]] = {
    "uncertainty": uncertainty,
    "ranks": ranks,
    "claims": claims,
    "crosscheck": agreement,
}
RANKED = {
    "performance": "Normalised performance",
    "retention": "Retention",
    "published_performance": "Table 7",
    "published_retention": "Table 8",
}


def rank_tests(evidence: Evidence) -> dict[str, Friedman]:
    """Friedman's test by `RANKED`: of this campaign's performance and retention, and of the paper's."""
    published = published_results()
    tables = (*(_by_base(evidence, measure) for measure in COMPARED), published.performance, published.retention)
    return {name: friedman(table) for name, table in zip(RANKED, tables, strict=True)}


def own_results(evidence: Evidence) -> Results:
    """This campaign in the form that claims are put to."""
    summary = evidence.summary
    multitask = summary["retention"].unstack("method").reindex(index=evidence.scope.bases, columns=[MULTITASK])[MULTITASK]
    trained = evidence.jobs[evidence.jobs["rule"].isin(_TRAINING)]
    on_cpu = len(trained) > 0 and (trained["used_gpus"] == 0).all()
    return Results(
        performance=_by_base(evidence, "performance"),
        retention=_by_base(evidence, "retention"),
        lineage=evidence.scope.lineage,
        multitask_retention=multitask,
        costs=evidence.costs,
        training_memory=float(trained["used_memory_mib"].max()) if on_cpu else math.nan,
    )


_DISTANCE = ["behind_best", "behind_low", "behind_high", "p", "p_holm", "best_group"]


def _intervals(evidence: Evidence) -> pd.DataFrame:
    """Rows of the table of uncertainty: every measure, base, compared model and domain."""
    scope = evidence.scope
    names = {model_of(name): name for name in scope.compared}
    blocks = []
    for measure in MEASURES:
        found = intervals(evidence.draws[measure]).set_index(["base", "model", "domain"])
        domains = [ALL_DOMAINS] if measure == "retention" else [ALL_DOMAINS, *scope.domains]
        keys = [(base, model, domain) for base in scope.bases for model in names for domain in domains]
        keys += [(OVERALL, model, ALL_DOMAINS) for model in names]
        block = found.reindex(pd.MultiIndex.from_tuples(keys, names=["base", "model", "domain"])).reset_index()
        block.insert(0, "measure", measure)
        block.insert(2, "method", block.pop("model").map(names))
        blocks.append(block)
    frame = pd.concat(blocks, ignore_index=True)
    gone = _left_out(evidence, frame)
    unknown = frame["low"].isna() & frame["value"].notna()
    for column in ("low", "high", "standard_error"):
        frame[column] = frame[column].astype(object).mask(unknown | gone, NOT_APPLICABLE)
    frame["value"] = frame["value"].astype(object).mask(gone, NOT_APPLICABLE)
    return frame


def _left_out(evidence: Evidence, frame: pd.DataFrame) -> pd.Series:
    """Rows of domains of which no benchmark counts on that base."""
    counted = set()
    for measure in MEASURES:
        counted |= {(measure, where.base, where.domain) for where in evidence.draws[measure]}
    keys = zip(frame["measure"], frame["base"], frame["domain"], strict=True)
    return pd.Series([key not in counted and key[2] != ALL_DOMAINS for key in keys], index=frame.index)


def _distances(evidence: Evidence, frame: pd.DataFrame, measure: str, base: str) -> None:
    """Fill in the comparison with the best method of one base."""
    top, group = best(evidence.method_draws(measure, base)), evidence.best_groups[measure, base]
    pairs = evidence.comparisons[measure, base]
    against = pairs[pairs["better"] == top].set_index("worse")
    rows = frame[(frame["measure"] == measure) & (frame["base"] == base) & (frame["domain"] == ALL_DOMAINS)]
    for index, method in rows["method"].items():
        if method not in evidence.scope.methods or top is None:
            continue
        if method == top:
            frame.loc[index, _DISTANCE] = [0.0, 0.0, 0.0, 1.0, 1.0, "best"]
        elif method in against.index:
            found = against.loc[method, ["difference", "low", "high", "p", "p_holm"]]
            frame.loc[index, _DISTANCE] = [*found, "not separable" if method in group else "no"]


def _shown(evidence: Evidence, frame: pd.DataFrame) -> pd.DataFrame:
    """Methods in rows, what is compared in columns."""
    whole = frame[frame["domain"] == ALL_DOMAINS]
    rows = [(base, name) for base in (*evidence.scope.bases, OVERALL) for name in evidence.scope.compared]
    display = pd.DataFrame({"base": [base for base, _ in rows], "method": [title(name) for _, name in rows]})
    for measure in COMPARED:
        mine = whole[whole["measure"] == measure].set_index(["base", "method"]).loc[rows]
        marks = ["" if group in ("no", NOT_APPLICABLE) else MARK for group in mine["best_group"]]
        values = mine[["value", "low", "high"]].itertuples(index=False, name=None)
        display[MEASURES[measure]] = [_with_interval(*row) + mark for row, mark in zip(values, marks, strict=True)]
        display[f"{MEASURES[measure]}: behind the best"] = [
            "best" if row.best_group == "best" else _with_interval(row.behind_best, row.behind_low, row.behind_high)
            for row in mine.itertuples()
        ]
        display[f"{MEASURES[measure]}: p"] = [p if isinstance(p, str) else "< 0.001" if p < 0.001 else f"{p:.3f}" for p in mine["p_holm"]]
    return display


def _resampled_seeds(evidence: Evidence) -> list[str]:
    several = [f"{title(name)} ({len(models)})" for name, models in evidence.scope.seeds.items() if len(models) > 1]
    if not several:
        return []
    return [
        f"Means over seeds: {', '.join(several)}. Their intervals and p-values hold the seeds' spread: resamples move the mean by its "
        "standard error, widened by Student's factor, because so few seeds say little of their spread (6.5 for two seeds, 2.2 for three)."
    ]


def _without_items(evidence: Evidence) -> list[str]:
    gaps = [
        f"`scores/{row.base}/{row.model}/{row.benchmark}.items.parquet`"
        for row in evidence.scores.itertuples()
        if (row.base, row.model, row.benchmark) not in evidence.resampled
    ]
    if not gaps:
        return []
    more = f" and {len(gaps) - 3} more" if len(gaps) > 3 else ""
    return [f"No interval (n/a) where items are not there: {', '.join(gaps[:3])}{more}."]


def _by_base(evidence: Evidence, column: str, *, with_overall: bool = False) -> pd.DataFrame:
    rows = [*evidence.scope.bases, *([OVERALL] if with_overall else [])]
    return evidence.summary[column].unstack("method").reindex(index=rows, columns=list(evidence.scope.methods))


def _outcome(test: Friedman) -> str:
    if math.isnan(test.critical_difference):
        return "needs two bases and two methods with all scores."
    word = "significant" if test.significant else "not significant"
    groups = "; ".join(", ".join(map(title, clique)) for clique in test.cliques())
    return (
        f"{test.bases} bases; Friedman chi-square {test.chi_square:.2f} (p {test.chi_square_p:.3f}), F {test.f:.2f} against "
        f"{test.f_critical:.2f} at 5 %, {word}; Nemenyi's critical difference {test.critical_difference:.2f}. Not separated: "
        f"{groups or 'none'}."
    )


def _with_interval(value: object, low: object, high: object, *, sign: bool = False) -> str:
    if not isinstance(value, float | int):
        return str(value)
    if np.isnan(value):
        return "missing"
    text = f"{value + 0.0:+.1f}" if sign else f"{value:.1f}"
    known = isinstance(low, float) and isinstance(high, float) and not np.isnan(low)
    return f"{text} [{low:.1f}, {high:.1f}]" if known else text
