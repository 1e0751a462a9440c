"""Normalised performance over groups of alike bases (the paper's Figure 2): sizes, and pretrained or instruction-tuned."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mergebench.analysis.labels import MULTITASK, UNTOUCHED_BASE, colour, title
from mergebench.analysis.panels import panels
from mergebench.analysis.scope import Scope
from mergebench.analysis.tables import Evidence

_SIZES = ("tiny", "small", "large")
_CONTROLS: dict[str, Any] = {UNTOUCHED_BASE: (0, (2, 2)), MULTITASK: (0, (6, 2))}
_POINT: dict[str, Any] = {
    "color": "#222222",
    "marker": "o",
    "markersize": 4.5,
    "linestyle": "none",
    "markeredgecolor": "white",
    "markeredgewidth": 0.7,
}
_ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}


def groups(scope: Scope) -> dict[str, tuple[str, ...]]:
    """Bases of the same size and training, by the name of the group: smaller ones first, pretrained before instruction-tuned.

    Bases of which neither is known are one group.
    """

    def place(base: str) -> tuple[int, bool]:
        known = scope.lineage.get(base, {})
        size = known.get("size")
        return (_SIZES.index(size) if size in _SIZES else len(_SIZES), bool(known.get("instruction_tuned")))

    found: dict[str, tuple[str, ...]] = {}
    for size, tuned in sorted(set(map(place, scope.bases))):
        known = size < len(_SIZES)
        name = f"{_SIZES[size].capitalize()}, {'instruction-tuned' if tuned else 'pretrained'}" if known else "All bases"
        found[name] = tuple(base for base in scope.bases if place(base) == (size, tuned))
    return found


def multitask_groups(evidence: Evidence) -> Figure:
    """One panel per group: the mean over its bases of every method, and each base as a point.

    The standard error of a mean is that of the items alone: what other bases would give is not in it, the points show that.
    """
    scope, summary = evidence.scope, evidence.summary
    members = groups(scope)
    methods = scope.methods
    figure, drawn = panels(list(members), width=4.6, height=1.0 + 0.28 * len(methods))
    highest = np.nanmax([100.0, *(summary["performance"] + summary["performance_se"].fillna(0))])
    for name, axes in drawn.items():
        bases = members[name]
        values = summary["performance"].unstack("method").loc[list(bases)]
        errors = summary["performance_se"].unstack("method").loc[list(bases)]
        means = values.mean(skipna=False)
        for row, method in enumerate(methods):
            mean, points = means[method], values[method].dropna()
            if len(bases) > 1:
                axes.plot(points, np.full(len(points), row), **_POINT, zorder=3)
            if math.isnan(mean):
                axes.text(1, row, "missing", va="center", color="#666666", style="italic", bbox=_ON_WHITE)
                continue
            error = float(np.sqrt((errors[method] ** 2).sum(skipna=False)) / len(bases))
            spread = 0.0 if math.isnan(error) else error
            axes.barh(row, mean, color=colour(method, methods), height=0.72)
            axes.errorbar(mean, row, xerr=spread, color="#222222", capsize=2, linewidth=1)
            axes.text(0.99, row, f"{mean:.1f}", transform=axes.get_yaxis_transform(), ha="right", va="center", bbox=_ON_WHITE)
        for control, dashes in _CONTROLS.items():
            if control in scope.compared and not math.isnan(means[control]):
                axes.axvline(means[control], color=colour(control, methods), linestyle=dashes, linewidth=1.3, zorder=0)
        listed = ",\n".join(", ".join(bases[start : start + 2]) for start in range(0, len(bases), 2))
        axes.set(xlim=(0, 1.17 * highest), ylim=(len(methods) - 0.4, -0.6), xlabel=f"Normalised performance (%), mean over\n{listed}")
        axes.set_yticks(range(len(methods)), [title(method) for method in methods])
        axes.tick_params(axis="y", length=0)
    handles = [
        Line2D([], [], label=title(control), color=colour(control, methods), linestyle=dashes, linewidth=1.3)
        for control, dashes in _CONTROLS.items()
        if control in scope.compared
    ]
    handles.append(Line2D([], [], color="#222222", marker="|", markersize=7, label="± one standard error"))
    if any(len(bases) > 1 for bases in members.values()):
        handles.append(Line2D([], [], **_POINT, label="One base"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles) if len(drawn) > 1 else 2)
    return figure
