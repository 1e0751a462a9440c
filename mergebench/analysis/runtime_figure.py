"""Performance against what a method took in time (the paper's Figure 5)."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from mergebench.analysis.labels import MULTITASK, UNTOUCHED_BASE, colour, marker, title
from mergebench.analysis.panels import missing_from, panels
from mergebench.analysis.tables import Evidence

_DECADE = 10.0
_CONTROLS: dict[str, Any] = {UNTOUCHED_BASE: (0, (2, 2)), MULTITASK: (0, (6, 2))}


def performance_runtime(evidence: Evidence) -> Figure:
    """One panel per base: normalised performance, with one standard error, against seconds of algorithm and validation together.

    Seconds are on a logarithmic axis where they span a decade. The controls have no cost of merging: they are lines.
    """
    methods, values = evidence.scope.methods, evidence.summary
    seconds = evidence.costs["algorithm_seconds"] + evidence.costs["validation_seconds"]
    figure, drawn = panels(evidence.scope.bases, width=4.2, height=3.6, beside=1.8)
    looks: dict[str, dict[str, Any]] = {
        method: {"color": colour(method, methods), "marker": marker(method, methods), "markersize": 8} for method in methods
    }
    lines: dict[str, dict[str, Any]] = {
        control: {"color": colour(control, methods), "linestyle": dashes, "linewidth": 1.2}
        for control, dashes in _CONTROLS.items()
        if control in evidence.scope.compared
    }
    for base, axes in drawn.items():
        took = seconds[base].where(values.loc[base]["performance"].reindex(methods).notna()).dropna()
        logarithmic = len(took) > 1 and took.min() > 0 and took.max() >= _DECADE * took.min()
        for method, x in took.items():
            y, error = values.loc[(base, method), ["performance", "performance_se"]]
            look = looks[str(method)]
            if not math.isnan(error):
                axes.errorbar(x, y, yerr=error, color=look["color"], linewidth=0.9, capsize=2, alpha=0.7, zorder=1)
            axes.plot(x, y, linestyle="none", markeredgecolor="white", markeredgewidth=0.6, alpha=0.9, zorder=2, **look)
        for control, look in lines.items():
            level = values.loc[(base, control), "performance"]
            if not math.isnan(level):
                axes.axhline(level, zorder=0, **look)
        axes.margins(0.1)
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda second, _: f"{second:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
        elif len(took):
            axes.set_xlim(left=0)
        absent = [title(method) for method in methods if method not in took.index]
        scale = ", logarithmic" if logarithmic else ""
        axes.set(xlabel=f"Wall-clock seconds{scale}" + missing_from(absent, len(methods)), ylabel="Normalised performance (%)")
        axes.annotate("↖ better", (0.02, 0.98), xycoords="axes fraction", va="top", color="#666666", style="italic", fontsize=8)
    handles = [Line2D([], [], linestyle="none", label=title(method), **look) for method, look in looks.items()]
    handles += [Line2D([], [], label=title(control), **look) for control, look in lines.items()]
    figure.legend(handles=handles, loc="outside right center")
    return figure
