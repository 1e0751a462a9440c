"""The table of Pareto frontiers: which methods no other matches and beats, here and in the paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from mergebench.analysis.cost_table import figures, missing_costs, shown_bases
from mergebench.analysis.labels import model_of, title
from mergebench.analysis.normalise import missing_targets
from mergebench.analysis.pareto import dominates, dominators
from mergebench.analysis.published import OVERALL as PUBLISHED_OVERALL
from mergebench.analysis.published import PUBLISHED_NEEDS, published_table
from mergebench.analysis.tables import NOT_APPLICABLE, OVERALL, Evidence, Table, missing_note

CAMPAIGN, PUBLISHED = "campaign", "published"
JOINED = "; "
_FRONTIERS = {"two_way": ["performance", "retention"], "three_way": ["performance", "retention", "price"]}
_FINE = 8


def pareto(evidence: Evidence) -> Table:
    """Which methods no other matches in performance, retention and price and beats in one of them."""
    frame = pd.DataFrame([row for base in shown_bases(evidence) for row in _frontier_rows(evidence, base)])
    frame = pd.concat([frame, published_frontiers()], ignore_index=True)
    shown = frame[(frame["source"] == CAMPAIGN) | (frame["base"] == OVERALL)]
    money = evidence.scope.prices["currency"] if evidence.scope.prices else NOT_APPLICABLE
    display = pd.DataFrame(
        {
            "base": shown["base"].where(shown["source"] == CAMPAIGN, "Paper's tables"),
            "method": shown["method"].map(title),
            "performance": shown["performance"],
            "retention": shown["retention"],
            "price": shown["price"].map(figures),
            **{name: [_shown_frontier(row, name) for row in shown.to_dict("records")] for name in _FRONTIERS},
        }
    )
    return Table(
        "pareto",
        frame,
        [
            "Rule: yes, if no other method is at least as good in everything and better in something; else the methods of the frontier "
            "that are. In brackets: the share of the resamples of the items in which the method is on the frontier; prices have no error.",
            "A method that lacks a value takes no part. Overall: means over the bases. The paper prints no prices.",
            *missing_note([*missing_scores(evidence), *missing_costs(evidence)]),
        ],
        display=display,
        headings={
            "base": "Base",
            "method": "Method",
            "performance": "Normalised performance",
            "retention": "Retention",
            "price": f"Price ({money})",
            "two_way": "On the frontier of performance and retention",
            "three_way": "With the price",
        },
        decimals={"price": _FINE},
        names=2,
    )


TABLES: dict[str, Callable[[Evidence], Table]] = {"pareto": pareto}


def points(evidence: Evidence, base: str) -> pd.DataFrame:
    """Performance and retention in percent and the price of every method on one base or overall; NaN where missing."""
    methods = list(evidence.scope.methods)
    means = evidence.summary.loc[base].reindex(methods)[["performance", "retention"]]
    return means.assign(price=evidence.spending.loc[base].reindex(methods)["price"])


def published_points(base: str = OVERALL) -> pd.DataFrame:
    """Performance and retention in the paper's tables, of one base as it writes it or as means over all; there are no prices."""
    columns = {}
    for name, number in (("performance", 7), ("retention", 8)):
        table = published_table(number).drop(PUBLISHED_OVERALL)
        columns[name] = table.mean() if base == OVERALL else table.loc[base]
    return pd.DataFrame(columns).reindex(PUBLISHED_NEEDS).assign(price=math.nan)


def published_frontiers() -> pd.DataFrame:
    """The frontier of performance and retention in the paper's tables, of every base and of the means over the bases."""
    rows = []
    for base in (*published_table(7).index.drop(PUBLISHED_OVERALL), OVERALL):
        values = published_points(base)[["performance", "retention"]]
        beaten = dominators(values)
        for method in values.index:
            rows.append(
                {
                    "source": PUBLISHED,
                    "base": base,
                    "method": method,
                    **values.loc[method].to_dict(),
                    "price": NOT_APPLICABLE,
                    **_verdict("two_way", beaten[method], NOT_APPLICABLE),
                    **_verdict("three_way", None, NOT_APPLICABLE, NOT_APPLICABLE),
                }
            )
    return pd.DataFrame(rows)


def missing_scores(evidence: Evidence) -> list[str]:
    """The score records that methods still lack, for performance or retention."""
    models = tuple(model_of(method) for method in evidence.scope.methods)
    targets = [target for cells in (evidence.performance, evidence.retention) for target in missing_targets(cells, models)]
    return list(dict.fromkeys(targets))


def titles(slugs: str) -> str:
    return ", ".join(title(slug) for slug in slugs.split(JOINED)) if slugs != NOT_APPLICABLE else slugs


def _frontier_rows(evidence: Evidence, base: str) -> list[dict[str, object]]:
    values = points(evidence, base)
    rows: list[dict[str, object]] = [
        {"source": CAMPAIGN, "base": base, "method": method, **values.loc[method].to_dict()} for method in values.index
    ]
    for name, axes in _FRONTIERS.items():
        known = values[axes].assign(**({"price": -values["price"]} if "price" in axes else {}))
        beaten = dominators(known)
        shares = _shares(evidence, base, known.dropna())
        absent = NOT_APPLICABLE if "price" in axes and evidence.scope.prices is None else math.nan
        for row in rows:
            method = str(row["method"])
            row |= _verdict(name, beaten.get(method), shares.get(method, NOT_APPLICABLE), absent)
    return rows


def _shares(evidence: Evidence, base: str, known: pd.DataFrame) -> dict[str, float]:
    """The share of draws in which each method is on the frontier; nothing unless all have draws."""
    draws = [evidence.method_draws(measure, base) for measure in ("performance", "retention")]
    if known.empty or any(method not in each or np.isnan(each[method]).any() for each in draws for method in known.index):
        return {}
    stacked = np.stack([[each[method][1:] for method in known.index] for each in draws], axis=1)
    if "price" in known:
        prices = np.broadcast_to(known["price"].to_numpy()[:, None, None], (len(known), 1, stacked.shape[2]))
        stacked = np.concatenate([stacked, prices], axis=1)
    on_it = ~dominates(stacked).any(axis=0)
    return dict(zip(known.index, on_it.mean(axis=1).tolist(), strict=True))


def _verdict(name: str, beaten: Sequence[object] | None, share: float | str, absent: float | str = math.nan) -> dict[str, object]:
    """The cells of one frontier: `beaten` are the methods that dominate, None where the method takes no part, and `absent` why."""
    who = f"{name}_dominated_by"
    if beaten is None:
        return {name: absent, who: NOT_APPLICABLE, f"{name}_share": absent}
    return {name: "no" if beaten else "yes", who: JOINED.join(map(str, beaten)) or NOT_APPLICABLE, f"{name}_share": share}


def _shown_frontier(row: dict[str, object], name: str) -> str:
    on_it, share = row[name], row[f"{name}_share"]
    if not isinstance(on_it, str):
        return "missing"
    if on_it == NOT_APPLICABLE:
        return on_it
    shown = on_it if on_it != "no" else f"no: {titles(str(row[f'{name}_dominated_by']))}"
    return f"{shown} ({share:.2f})" if isinstance(share, float) else shown
