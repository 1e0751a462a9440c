"""How faithful the surrogates are: do they rank models as the benchmarks do?

A model counts if it has been scored on both sides. Specialists have score records of the surrogates. A merged model has the scores of the
candidate with its very weights: the digest in its manifest is the one in a search log, whichever method's search that is.

Both sides are normalised by the domain's specialist and averaged over the surrogates or benchmarks of a domain. Models are compared with
models of their own base only.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from mergebench.analysis.labels import MERGED_PREFIX, SPECIALIST_PREFIX
from mergebench.analysis.normalise import domain_shares
from mergebench.analysis.records import Record
from mergebench.analysis.scope import SURROGATE, Scope

EVERY_DOMAIN = "all"
MERGED, EVERY_MODEL = "merged", "every"
SETS = (MERGED, EVERY_MODEL)
FEWEST = 5
"""Models without which nothing is said about a rank correlation: below, Kendall's interval is not defined."""
LOWEST_REFERENCE = 0.01
"""As in tuning: a surrogate on which its own specialist scores less is not divided by that score."""
QUANTILE = 1.959963984540054  # of the normal distribution, for 95 %
_DIGITS = 10  # means of the same numbers in another order are ties, not ranks

SURROGATE_COLUMNS = ["base", "model", "weights", "surrogate", "value"]
POINT_COLUMNS = ["base", "model", "weights", "domain", "surrogate", "benchmark"]
COLUMNS = [
    "base",
    "models",
    "domain",
    "n",
    "spearman",
    "spearman_low",
    "spearman_high",
    "kendall",
    "kendall_low",
    "kendall_high",
]


def read_surrogates(scores: pd.DataFrame, searches: Iterable[Path], merges: Iterable[Path], scope: Scope) -> pd.DataFrame:
    """The score of every model on every surrogate.

    Args:
        scores: as `scores.read_scores` gives them, surrogates included.
        searches: `tuning/<base>/<method>/search.parquet`. Rows of single blocks of items are left out.
        merges: `models/<base>/merged_<method>/manifest.json`; its `realised_digest` is the one that a search logs.
        scope: bases, methods and surrogates that count.

    Returns:
        Frame with columns `SURROGATE_COLUMNS`; weights is a digest, for specialists the name of the model.

    Raises:
        MergebenchError: a manifest is malformed.
    """
    names = [name for group in scope.surrogates.values() for name in group]
    scored = scores[(scores["role"] == SURROGATE) & scores["benchmark"].isin(names) & scores["base"].isin(scope.bases)]
    scored = scored[scored["model"].isin(scope.specialists)].rename(columns={"benchmark": "surrogate"})
    logs = []
    for path in map(Path, searches):
        log = pd.read_parquet(path, columns=["surrogate", "block", "value", "weights"])
        logs.append(log[log["block"].isna()].assign(base=path.parent.parent.name))
    tried = pd.concat(logs) if logs else pd.DataFrame(columns=["surrogate", "value", "weights", "base"])
    tried = tried[tried["surrogate"].isin(names)].drop_duplicates(["base", "weights", "surrogate"])
    merged = pd.DataFrame(
        [(path.parent.parent.name, path.parent.name, Record(path).text("realised_digest")) for path in map(Path, merges)],
        columns=["base", "model", "weights"],
    )
    wanted = merged["base"].isin(scope.bases) & merged["model"].isin([MERGED_PREFIX + method for method in scope.methods])
    candidates = merged[wanted].merge(tried, on=["base", "weights"])
    found = pd.concat([scored.assign(weights=scored["model"])[SURROGATE_COLUMNS], candidates[SURROGATE_COLUMNS]], ignore_index=True)
    return found.astype({"value": float})


def points(surrogates: pd.DataFrame, performance: pd.DataFrame, scope: Scope) -> pd.DataFrame:
    """One row per model and domain (and for `EVERY_DOMAIN`) that has both scores.

    Args:
        surrogates: from `read_surrogates`.
        performance: cells of normalised performance, from `normalise.performance_cells`.
        scope: the surrogates of each domain.

    Returns:
        Frame with columns `POINT_COLUMNS`: surrogate and benchmark are normalised scores. Methods that made the same weights are one model.
        A domain of which no benchmark counts for a base (`normalise.FLOOR`) has no rows there, and `EVERY_DOMAIN` is about the others.
    """
    domain_of = {name: domain for domain, names in scope.surrogates.items() for name in names}
    frame = surrogates.assign(domain=surrogates["surrogate"].map(domain_of))
    references = frame[frame["model"] == SPECIALIST_PREFIX + frame["domain"]].set_index(["base", "surrogate"])["value"]
    reference = references.reindex(pd.MultiIndex.from_frame(frame[["base", "surrogate"]])).to_numpy(dtype=float)
    frame["value"] = frame["value"] / np.where(reference < LOWEST_REFERENCE, 1.0, reference)  # unknown: stays missing
    keys = ["base", "model", "weights"]
    means = frame.groupby([*keys, "domain"])["value"].agg(["mean", "count"]).reset_index()
    complete = means["count"] == means["domain"].map({domain: len(names) for domain, names in scope.surrogates.items()})
    means = means[complete].rename(columns={"mean": "surrogate"})
    shares = domain_shares(performance)["share"].rename("benchmark").reset_index()
    both = means.merge(shares, on=["base", "model", "domain"]).dropna(subset=["benchmark"])[POINT_COLUMNS]
    counted = shares.groupby("base")["domain"].nunique()
    models = both.groupby(keys, sort=False)[["surrogate", "benchmark"]]
    size = models.size()
    whole = models.mean()[size.to_numpy() == counted.reindex(size.index.get_level_values("base")).to_numpy()]
    found = pd.concat([both, whole.reset_index().assign(domain=EVERY_DOMAIN)[POINT_COLUMNS]], ignore_index=True)
    return found.drop_duplicates(["base", "weights", "domain"], ignore_index=True)


def correlations(found: pd.DataFrame, scope: Scope, overall: str) -> pd.DataFrame:
    """Rank correlations of the two scores, per base and set of models, and over bases.

    Spearman's with average ranks, Kendall's tau-b; 95 % intervals by Fisher's transformation with the variances of Bonett and Wright (2000,
    doi:10.1007/BF02294183), (1 + r^2 / 2) / (n - 3) and 0.437 / (n - 4). Scores with few items tie often, which weakens both.

    Over bases: the mean of the transformed correlations, weighted by n - 3 and n - 4. A base without a correlation makes it missing.

    Returns:
        Frame with columns `COLUMNS`. NaN where fewer than `FEWEST` models have both scores, or all scores of one side are equal.
    """
    rows = []
    for models in SETS:
        chosen = found if models == EVERY_MODEL else found[found["model"].str.startswith(MERGED_PREFIX)]
        for domain in (*scope.domains, EVERY_DOMAIN):
            each = []
            for base in scope.bases:
                mine = chosen[(chosen["base"] == base) & (chosen["domain"] == domain)]
                x, y = (mine[side].to_numpy(dtype=float).round(_DIGITS) for side in ("surrogate", "benchmark"))
                each.append((len(x), spearman(x, y), kendall(x, y)))
                rows.append((base, models, domain, *_row([each[-1]])))
            if len(scope.bases) > 1:
                rows.append((overall, models, domain, *_row(each)))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    order = {name: place for place, name in enumerate((*scope.bases, overall))}
    return frame.sort_values("base", key=lambda column: column.map(order), kind="stable", ignore_index=True)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation with average ranks; NaN for fewer than `FEWEST` values or equal ones."""
    if not _varied(x, y):
        return np.nan
    return float(np.corrcoef(pd.Series(x).rank(), pd.Series(y).rank())[0, 1])


def kendall(x: np.ndarray, y: np.ndarray) -> float:
    """Kendall's tau-b; NaN for fewer than `FEWEST` values or equal ones."""
    if not _varied(x, y):
        return np.nan
    first, second = np.sign(x[:, None] - x), np.sign(y[:, None] - y)
    return float((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum()))


def interval(values: list[float], sizes: list[int], kind: str) -> tuple[float, float, float]:
    """The mean correlation of independent groups of models and its 95 % interval; see `correlations`.

    A perfect correlation has no transform. It enters as the one that a single exchange of neighbours leaves (for n models
    1 - 12 / (n^3 - n), or 1 - 4 / (n^2 - n) for Kendall's), and the interval reaches to it.
    """
    lost = 3 if kind == "spearman" else 4
    n = np.array(sizes, dtype=float)
    most = 1 - (12 / (n**3 - n) if kind == "spearman" else 4 / (n**2 - n))
    r = np.clip(values, -most, most)
    weights = n - lost
    variances = (1 + r**2 / 2 if kind == "spearman" else 0.437 * np.ones_like(r)) / weights
    centre = float((weights * np.arctanh(r)).sum() / weights.sum())
    half = QUANTILE * float(np.sqrt((weights**2 * variances).sum())) / float(weights.sum())
    mean = float(values[0]) if len(values) == 1 else float(np.tanh(centre))
    low, high = np.tanh([centre - half, centre + half])
    return mean, float(min(low, mean)), float(max(high, mean))


def _row(groups: list[tuple[int, float, float]]) -> tuple[float, ...]:
    """n, then each correlation with its interval, of the groups together."""
    sizes = [size for size, _, _ in groups]
    found: list[float] = [sum(sizes) or np.nan]
    for kind, values in (("spearman", [g[1] for g in groups]), ("kendall", [g[2] for g in groups])):
        found += [np.nan] * 3 if np.isnan(values).any() else interval(values, sizes, kind)
    return tuple(found)


def _varied(x: np.ndarray, y: np.ndarray) -> bool:
    return len(x) >= FEWEST and len(np.unique(x)) > 1 and len(np.unique(y)) > 1
