"""The paper's findings (sections 4.1-4.3) and its guideline as tests that any results can be put to.

Each claim is a function of `Results` that says supported, refuted or undecided, and the numbers behind it. What a claim means is
decided here once, so that the published tables and one's own runs are judged alike:

- "all", "consistently": every cell; one exception refutes it.
- a tendency: at least 95 % of the cases support it, from 75 % on mostly, below half refutes it.
- "strong" and "middle" are the first and the second third of the range of mean ranks, 1 to k; "weak" and "low" its lower half.
- a claim on bases or methods that are not there, or on ranks over too few bases to separate any, is undecided.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from mergebench.analysis.distributions import f_tail
from mergebench.analysis.labels import title
from mergebench.analysis.pareto import frontier
from mergebench.analysis.published import published_bases, published_table
from mergebench.analysis.ranks import ALPHA, Friedman, friedman, ranks

SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"
_SOUP, _TA, _FISHER, _REGMEAN, _TIES, _DARE, _CONSENSUS = (
    "model_soup", "task_arithmetic", "fisher", "regmean", "ties", "dare", "consensus_ta",
)  # fmt: skip
_DATALESS, _STITCH = "dataless_localize_and_stitch", "localize_and_stitch"
_CLOSE = 5.0
_HIGH = 90.0
_WEAK = 0.3
_MOST, _NEARLY_ALL = 0.75, 0.95


@dataclass(frozen=True)
class Results:
    """What claims are put to; NaN or absent where something is not known.

    Attributes:
        performance, retention: percent, bases x methods (slugs).
        lineage: of each base family, size (`small`, `large` or another), parameters and instruction_tuned.
        multitask_retention: percent of the multitask model, by base.
        costs: indexed by base and method, with algorithm_seconds, validation_seconds and peak_memory_mib.
        training_memory: highest resident memory of a training job on the CPU, MiB; NaN where training ran on a GPU.
    """

    performance: pd.DataFrame
    retention: pd.DataFrame
    lineage: Mapping[str, Mapping[str, Any]]
    multitask_retention: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    costs: pd.DataFrame | None = None
    training_memory: float = math.nan


@dataclass(frozen=True)
class Verdict:
    """supported, refuted or undecided; a `reservation` such as "weakly" ("" if none); and the numbers or what is missing."""

    verdict: str
    numbers: str
    reservation: str = ""

    def __str__(self) -> str:
        return f"{self.verdict} {self.reservation}".strip()


@dataclass(frozen=True)
class Claim:
    """One claim: its number in our list, the paper's section, what it says, and how it is tested."""

    id: str
    section: str
    text: str
    test: Callable[[Results], Verdict]


class _Unknown(Exception):
    """What a claim needs is not there."""


def judge(results: Results) -> dict[str, Verdict]:
    """Put every claim to some results, by the claim's id."""
    found = {}
    for claim in CLAIMS:
        try:
            found[claim.id] = claim.test(results)
        except _Unknown as missing:
            found[claim.id] = Verdict(UNDECIDED, str(missing))
    return found


def published_results() -> Results:
    """The paper's Tables 7 and 8; it has no table of run times, of memory or of the multitask model's retention."""
    performance, retention = (published_table(number).drop("Overall") for number in (7, 8))
    return Results(performance, retention, published_bases())


def _larger_is_better(results: Results) -> Verdict:
    pairs = _pairs(results, results.performance)
    rising = {name: results.performance.loc[large] > results.performance.loc[small] for name, small, large in pairs}
    won, total = sum(int(each.sum()) for each in rising.values()), sum(len(each) for each in rising.values())
    numbers = f"{won} of {total} pairs rise: " + ", ".join(f"{name} {each.sum()}/{len(each)}" for name, each in rising.items())
    return Verdict(SUPPORTED, numbers) if won == total else Verdict(REFUTED, numbers, "as stated")


def _best_recovers(results: Results) -> Verdict:
    best = _chosen(results, results.performance, size="small", instruction_tuned=False).max(axis=1)
    close = ((best - 80).abs() <= _CLOSE).all()
    return Verdict(SUPPORTED if close else REFUTED, _joined(best))


def _large_above(results: Results) -> Verdict:
    return _all_above(_chosen(results, results.performance, size="large", instruction_tuned=False))


def _instruct_above(results: Results) -> Verdict:
    return _all_above(_chosen(results, results.performance, instruction_tuned=True))


def _instruct_better(results: Results) -> Verdict:
    table, facts = results.performance, results.lineage
    siblings = [
        (one, other)
        for one in _known(results, table)
        for other in _known(results, table)
        if not facts[one]["instruction_tuned"]
        and facts[other]["instruction_tuned"]
        and (facts[one]["family"], facts[one]["parameters"]) == (facts[other]["family"], facts[other]["parameters"])
    ]
    if not siblings:
        raise _Unknown("needs a pretrained base and its instruction-tuned sibling")
    cells = {(other, method): table.loc[other, method] > table.loc[one, method] for one, other in siblings for method in table}
    exceptions = [f"{title(method)} on {base}" for (base, method), higher in cells.items() if not higher]
    numbers = f"{len(cells) - len(exceptions)} of {len(cells)}" + (f" (not {', '.join(exceptions)})" if exceptions else "")
    return _tendency(len(cells) - len(exceptions), len(cells), numbers)


def _stitching_leads(results: Results) -> Verdict:
    test = _tested(results.performance, _STITCH, _DATALESS)
    order = list(test.mean_ranks.sort_values(kind="stable").index)
    apart = {method: test.worse_than(method) for method in (_STITCH, _DATALESS)}
    leading = sum(method in order[:2] for method in apart)
    numbers = f"mean ranks {_number(test.mean_ranks[_STITCH], 2)} and {_number(test.mean_ranks[_DATALESS], 2)}; " + "; ".join(
        f"{title(method)} separated from {', '.join(map(title, worse)) or 'no method'}" for method, worse in apart.items()
    )
    if leading < 2:
        return Verdict(UNDECIDED if leading else REFUTED, numbers)
    weak = any(len(worse) < len(order) - 2 for worse in apart.values())
    return Verdict(SUPPORTED, numbers, "weakly" if weak else "")


def _regmean_small(results: Results) -> Verdict:
    small, large, k = _ranks_by_size(results, _REGMEAN)
    good = small <= 1 + (k - 1) / 3 and large > (k + 1) / 2
    return Verdict(SUPPORTED if good else REFUTED, _by_size(small, large))


def _middle(results: Results) -> Verdict:
    methods = (_TA, _CONSENSUS, _TIES)
    test = _tested(results.performance, *methods)
    k = len(test.mean_ranks)
    inside = sum(1 + (k - 1) / 3 <= test.mean_ranks[method] <= 1 + 2 * (k - 1) / 3 for method in methods)
    numbers = "mean ranks " + ", ".join(f"{title(method)} {_number(test.mean_ranks[method], 2)}" for method in methods)
    return Verdict((REFUTED, REFUTED, UNDECIDED, SUPPORTED)[inside], numbers)


def _dare_low(results: Results) -> Verdict:
    small, large, k = _ranks_by_size(results, _DARE)
    low = min(small, large) > (k + 1) / 2
    return Verdict(SUPPORTED if low and large > small else REFUTED, _by_size(small, large))


def _fisher_lowest(results: Results) -> Verdict:
    mean = _tested(results.performance, _FISHER).mean_ranks
    numbers = f"mean rank {_number(mean[_FISHER], 2)}, {_place(-mean, _FISHER, last=True)}"
    return Verdict(SUPPORTED if mean[_FISHER] == mean.max() else REFUTED, numbers)


def _forget_less_than_multitask(results: Results) -> Verdict:
    multitask = results.multitask_retention.dropna()
    merged = results.retention.reindex(multitask.index).dropna(how="all")
    if merged.empty:
        raise _Unknown("needs own runs: the retention of the multitask model")
    higher = merged.gt(multitask[merged.index], axis=0).to_numpy().sum()
    known = int(merged.notna().to_numpy().sum())
    numbers = f"{higher} of {known} merged models retain more; multitask {_joined(multitask)}"
    return _tendency(int(higher), known, numbers)


def _sparse_retain(results: Results) -> Verdict:
    chosen = (_TIES, _DATALESS, _STITCH)
    test = _tested(results.retention, *chosen)
    mean = results.retention.dropna().mean().round(6)
    ranked = ", ".join(f"{title(method)} {_number(mean[method])} ({_place(mean, method)})" for method in chosen)
    others = mean.drop(list(chosen))
    ranked += f"; best other {title(str(others.idxmax()))} {_number(others.max())} ({_place(mean, str(others.idxmax()))})"
    if not test.significant:
        return Verdict(UNDECIDED, f"{ranked}; Friedman not significant (F {test.f:.2f} against {test.f_critical:.2f})")
    return Verdict(SUPPORTED if mean[list(chosen)].min() > others.max() else REFUTED, ranked)


def _scaling_forgets(results: Results) -> Verdict:
    _require(results.retention, _TA, _SOUP)
    table = results.retention[[_TA, _SOUP]].dropna()
    if table.empty:
        raise _Unknown("needs the retention of Task Arithmetic and Model Soup on one base")
    below = int((table[_TA] < table[_SOUP]).sum())
    return _tendency(below, len(table), f"on {below} of {len(table)} bases")


def _dare_forgets(results: Results) -> Verdict:
    sparse = (_TIES, _CONSENSUS, _DATALESS, _STITCH)
    _require(results.retention, _DARE, *sparse)
    mean = _complete(results.retention).mean().round(6)
    numbers = f"{_number(mean[_DARE])}, {_place(mean, _DARE, of_all=True)}"
    return Verdict(SUPPORTED if (mean[_DARE] < mean[list(sparse)]).all() else REFUTED, numbers)


def _validation_dominates(results: Results) -> Verdict:
    costs = _costs(results)
    tuned = costs[costs["validation_seconds"] > 0]
    share = 100 * tuned["validation_seconds"] / (tuned["validation_seconds"] + tuned["algorithm_seconds"])
    if share.dropna().empty:
        raise _Unknown("needs own runs: run times of tuned methods")
    more, known = int((share > 50).sum()), int(share.notna().sum())
    return _tendency(more, known, f"more than half of the run time in {more} of {known} tuned cases; median {_number(share.median())} %")


def _memory_like_training(results: Results) -> Verdict:
    peak = _costs(results)["peak_memory_mib"].groupby("method").max().reindex([_FISHER, _STITCH, _SOUP])
    if math.isnan(results.training_memory) or peak.isna().any():
        raise _Unknown("needs own runs: peak memory of Fisher, L&S, Model Soup and of training on the same kind of device")
    numbers = ", ".join(f"{title(method)} {mib:.0f}" for method, mib in peak.items()) + f" MiB; training {results.training_memory:.0f} MiB"
    like_training = peak >= results.training_memory / 2
    if like_training[_SOUP]:
        return Verdict(UNDECIDED, f"{numbers}; Model Soup needs as much, so these models are too small to tell")
    return Verdict(SUPPORTED if like_training[[_FISHER, _STITCH]].all() else REFUTED, numbers)


def _larger_forget_more(results: Results) -> Verdict:
    pairs = [pair for pair in _pairs(results, results.retention) if not results.lineage[pair[1]]["instruction_tuned"]]
    if not pairs:
        raise _Unknown("needs a smaller and a larger pretrained base of one family")
    mean = results.retention.mean(axis=1)
    numbers = ", ".join(f"{name} {_number(mean[small])} to {_number(mean[large])}" for name, small, large in pairs)
    falls = [mean[large] < mean[small] for _, small, large in pairs]
    return Verdict(SUPPORTED if all(falls) else REFUTED, f"row means {numbers}; confounded with the learning rate")


def _unrelated(results: Results) -> Verdict:
    shared = [method for method in results.performance if method in results.retention]
    performance, retention = (_complete(table[shared]).mean() for table in (results.performance, results.retention))
    n = len(shared)
    if n < 4:
        raise _Unknown("needs at least four methods")
    r = float(performance.corr(retention))
    if math.isnan(r):
        raise _Unknown("needs methods that differ")
    p = f_tail(r**2 * (n - 2) / (1 - r**2), 1, n - 2) if abs(r) < 1 else 0.0
    verdict = REFUTED if p < ALPHA else SUPPORTED if abs(r) < _WEAK else UNDECIDED
    return Verdict(verdict, f"correlation of the means {_number(r, 2)} (p {p:.2f})")


def _guideline(results: Results) -> Verdict:
    recommended = (_SOUP, _DATALESS, _TA, _STITCH, _REGMEAN)
    _require(results.performance, *recommended)
    means = pd.DataFrame({"performance": _complete(results.performance).mean(), "retention": _complete(results.retention).mean()}).dropna()
    two = [str(method) for method in frontier(means)]
    numbers = f"Pareto set of performance and retention: {', '.join(map(title, two))}"
    dominated = [title(method) for method in recommended if method in means.index and method not in two]
    numbers += f"; dominated there: {', '.join(dominated) or 'none that is recommended'}"
    if results.costs is None or results.costs["algorithm_seconds"].isna().all():
        return Verdict(UNDECIDED, f"{numbers}; needs own runs: run times")
    total = (results.costs["algorithm_seconds"] + results.costs["validation_seconds"]).unstack("method")
    three = [str(method) for method in frontier(means.assign(speed=-total.mean(skipna=False)))]
    outside = [title(method) for method in recommended if method not in three]
    numbers += f"; with run time: {', '.join(map(title, three))}"
    return Verdict(REFUTED if outside else SUPPORTED, numbers)


CLAIMS = (
    Claim("C1", "4.1", "A larger base scores higher, in both families and with all methods", _larger_is_better),
    Claim("C2", "4.1", "The best method on 2B/3B pretrained bases recovers about 80 %", _best_recovers),
    Claim("C3", "4.1", "8B/9B pretrained bases are consistently above 90 %", _large_above),
    Claim("C4", "4.1", "Instruction-tuned bases are consistently above 90 %", _instruct_above),
    Claim("C5", "4.1", "Instruction-tuned bases are above their pretrained siblings", _instruct_better),
    Claim("C6", "4.1", "Both variants of Localize-and-Stitch lead", _stitching_leads),
    Claim("C7", "4.1", "RegMean is strong on small bases and weak on large ones", _regmean_small),
    Claim("C8", "4.1", "Task Arithmetic, Consensus TA and TIES are in the middle", _middle),
    Claim("C9", "4.1", "DARE is low, and lower on large bases", _dare_low),
    Claim("C10", "4.1", "Fisher is lowest", _fisher_lowest),
    Claim("C11", "4.2", "Merged models forget less than the multitask model", _forget_less_than_multitask),
    Claim("C12", "4.2", "TIES and both variants of Localize-and-Stitch retain best", _sparse_retain),
    Claim("C13", "4.2", "Larger scaling forgets more (Task Arithmetic below Model Soup)", _scaling_forgets),
    Claim("C14", "4.2", "DARE preserves worse than the other sparsifiers", _dare_forgets),
    Claim("C15", "4.3", "Validation dominates the run time", _validation_dominates),
    Claim("C16", "4.3", "Fisher and Localize-and-Stitch need memory like full fine-tuning", _memory_like_training),
    Claim("C17", "", "Larger pretrained bases forget more (not stated)", _larger_forget_more),
    Claim("C18", "", "Performance and retention are unrelated across methods (not stated)", _unrelated),
    Claim("C19", "4.4", "Guideline: Soup; then dataless L&S or Task Arithmetic; then L&S or RegMean", _guideline),
)


def _tendency(cases: int, total: int, numbers: str) -> Verdict:
    share = cases / total
    if share >= _MOST:
        return Verdict(SUPPORTED, numbers, "" if share >= _NEARLY_ALL else "mostly")
    return Verdict(REFUTED if share < 0.5 else UNDECIDED, numbers)


def _all_above(cells: pd.DataFrame) -> Verdict:
    above = cells.gt(_HIGH).sum(axis=1)
    numbers = f"{above.sum()} of {cells.size} cells ({', '.join(f'{base} {count}' for base, count in above.items())}); row means "
    return Verdict(SUPPORTED if above.sum() == cells.size else REFUTED, numbers + _joined(cells.mean(axis=1)))


def _known(results: Results, table: pd.DataFrame) -> list[str]:
    """Bases with a lineage whose row is complete."""
    return [base for base in table.dropna().index if base in results.lineage]


def _chosen(results: Results, table: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """Complete rows of the bases with these facts.

    Raises:
        _Unknown: there are none.
    """
    chosen = [base for base in _known(results, table) if all(results.lineage[base][key] == value for key, value in wanted.items())]
    if not chosen:
        size = {"small": "2B/3B ", "large": "8B/9B "}.get(wanted.get("size", ""), "")
        kind = "instruction-tuned" if wanted["instruction_tuned"] else "pretrained"
        raise _Unknown(f"needs {size}{kind} bases with the scores of all methods")
    return table.loc[chosen]


def _pairs(results: Results, table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(name, smaller, larger) of bases of one family and kind, neighbours in their number of parameters."""
    kinds: dict[tuple[str, bool], list[str]] = {}
    for base in _known(results, table):
        kinds.setdefault((results.lineage[base]["family"], results.lineage[base]["instruction_tuned"]), []).append(base)
    found = []
    for (family, tuned), bases in kinds.items():
        ordered = sorted(bases, key=lambda base: results.lineage[base]["parameters"])
        for small, large in itertools.pairwise(ordered):
            if results.lineage[small]["parameters"] < results.lineage[large]["parameters"]:
                found.append((family + (" instruction-tuned" if tuned else ""), small, large))
    if not found:
        raise _Unknown("needs a smaller and a larger base of one family")
    return found


def _require(table: pd.DataFrame, *methods: str) -> None:
    absent = [title(method) for method in methods if method not in table or table[method].isna().all()]
    if absent:
        raise _Unknown(f"needs {', '.join(absent)}")


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    complete = table.dropna()
    if complete.empty:
        raise _Unknown("needs a base with the scores of all methods")
    return complete


def _tested(table: pd.DataFrame, *methods: str) -> Friedman:
    """Friedman's test of a table that has these methods.

    Raises:
        _Unknown: it lacks one, or so many bases that even the first and the last of all could not be separated.
    """
    _require(table, *methods)
    test = friedman(table)
    if math.isnan(test.critical_difference):
        raise _Unknown("needs two bases with the scores of all methods")
    if test.critical_difference > len(test.mean_ranks) - 1:
        raise _Unknown(f"needs more bases: ranks over {test.bases} cannot separate {len(test.mean_ranks)} methods")
    return test


def _ranks_by_size(results: Results, method: str) -> tuple[float, float, int]:
    _require(results.performance, method)
    ranked = ranks(results.performance.dropna())
    sizes = {size: [base for base in _known(results, ranked) if results.lineage[base]["size"] == size] for size in ("small", "large")}
    if not all(sizes.values()):
        raise _Unknown("needs 2B/3B and 8B/9B bases with the scores of all methods")
    small, large = (float(ranked.loc[bases, method].mean()) for bases in sizes.values())
    return small, large, ranked.shape[1]


def _by_size(small: float, large: float) -> str:
    return f"mean rank {_number(small, 2)} on 2B/3B, {_number(large, 2)} on 8B/9B"


def _costs(results: Results) -> pd.DataFrame:
    if results.costs is None:
        raise _Unknown("needs own runs")
    return results.costs


def _place(values: pd.Series, one: str, *, of_all: bool = False, last: bool = False) -> str:
    """Place by falling value: "1st", "3rd, tied", "8th of 9"; "last" for the last if asked."""
    place = int((values > values[one]).sum()) + 1
    if last and values[one] == values.min():
        return "last"
    suffix = "th" if 10 < place % 100 < 20 else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    tied = ", tied" if (values == values[one]).sum() > 1 else ""
    return f"{place}{suffix}{f' of {len(values)}' if of_all else ''}{tied}"


def _joined(values: pd.Series | Sequence[float]) -> str:
    return " and ".join(_number(value) for value in values)


def _number(value: float, decimals: int = 1) -> str:
    """Without the last bits of a sum, so that 733.2 / 8 prints as 91.65 does."""
    return f"{round(value, 9):.{decimals}f}"
