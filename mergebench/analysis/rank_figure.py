"""Critical-difference plots: mean ranks of the methods over the bases, and which of them Nemenyi's test cannot tell apart."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mergebench.analysis.labels import colour, title
from mergebench.analysis.ranks import Friedman

_INK, _GREY = "#222222", "#666666"
_STEP = 0.62


def critical_difference(tests: Mapping[str, Friedman], methods: tuple[str, ...]) -> Figure:
    """Draw one panel per test, below each other, as in Demšar 2006, figure 1.

    Best ranks are on the left. A bar joins methods that are not separated; the critical difference is drawn at its length.
    """
    half = max(2, math.ceil(max(len(test.mean_ranks) for test in tests.values()) / 2))
    figure = Figure(figsize=(8.4, (1.5 + 0.27 * half) * len(tests) + 0.2), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.12))
    FigureCanvasAgg(figure)
    for axes, (name, test) in zip(figure.subplots(len(tests), 1, squeeze=False).ravel(), tests.items(), strict=True):
        axes.set_title(name)
        axes.set_axis_off()
        if math.isnan(test.critical_difference):
            axes.text(0.5, 0.5, "missing: needs two bases and two methods with all scores", ha="center", color=_GREY, style="italic")
        else:
            _panel(axes, test, methods)
    return figure


def _panel(axes: Axes, test: Friedman, methods: tuple[str, ...]) -> None:
    ordered = test.mean_ranks.sort_values(kind="stable")
    k = len(ordered)
    cliques = test.cliques()
    first = 0.45 + 0.22 * len(cliques) + 0.35  # below the bars
    left = math.ceil(k / 2)
    axes.plot([1, k], [0, 0], color=_INK, linewidth=1)
    for rank in range(1, k + 1):
        axes.plot([rank, rank], [0, -0.14], color=_INK, linewidth=1)
        axes.text(rank, -0.24, f"{rank}", ha="center", va="bottom", fontsize=8)
    for place, (method, rank) in enumerate(ordered.items()):
        on_left = place < left
        row = first + _STEP * (place if on_left else k - 1 - place)
        edge = 1 - 0.045 * k if on_left else k + 0.045 * k
        ink = colour(str(method), methods)
        axes.plot([rank, rank, edge], [0, row, row], color=ink, linewidth=1.3)
        label = f"{title(str(method))}  {rank:.2f}" if on_left else f"{rank:.2f}  {title(str(method))}"
        axes.text(edge, row, f"{label} " if on_left else f" {label}", ha="right" if on_left else "left", va="center")
    for level, clique in enumerate(cliques):
        low, high = ordered[clique[0]], ordered[clique[-1]]
        height = 0.35 + 0.22 * level
        axes.plot([low - 0.02 * k, high + 0.02 * k], [height, height], color=_INK, linewidth=3.2, solid_capstyle="butt")
    critical = min(test.critical_difference, k - 1)
    axes.plot([1, 1 + critical], [-1.15, -1.15], color=_INK, linewidth=1.3, marker="|", markersize=7)
    exact = "" if test.critical_difference <= k - 1 else ", more than the axis is long"
    p = "p < 0.001" if test.f_p < 0.001 else f"p = {test.f_p:.3f}"
    note = f"critical difference {test.critical_difference:.2f}{exact}; {test.bases} bases; Friedman {p}"
    axes.text(1, -1.35, note, ha="left", va="bottom", fontsize=8, color=_GREY)
    axes.set(xlim=(1 - 0.33 * k, k + 0.33 * k), ylim=(first + _STEP * (left - 1) + 0.35, -1.9))
