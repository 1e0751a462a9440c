"""Performance against retention with the price as size, and the Pareto frontier."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from mergebench.analysis.labels import colour, marker, title
from mergebench.analysis.pareto import frontier

_INK, _GREY = "#222222", "#666666"
_SMALL, _LARGE, _UNPRICED = 35.0, 330.0, 80.0  # areas of markers, square points
_COLUMNS = 2


def draw_pareto(panels: dict[str, pd.DataFrame], methods: tuple[str, ...], currency: str) -> Figure:
    """One panel per base: right is better, up is better, small is cheap.

    A line joins the methods on the frontier of performance and retention; a ring marks those on the frontier with the price.

    Args:
        panels: by title, performance, retention (percent) and price by method; NaN where missing, prices too where there are none.
        methods: which fix colours and markers.
        currency: of the prices.
    """
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.2 * columns + 1.9, 3.6 * rows + 0.5), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in grid[len(panels) :]:
        spare.remove()
    for (name, points), axes in zip(panels.items(), grid, strict=False):
        axes.set_title(name)
        _panel(axes, points, methods, currency)
    figure.legend(handles=_handles(methods, panels), loc="outside right center")
    return figure


def _panel(axes: Axes, points: pd.DataFrame, methods: tuple[str, ...], currency: str) -> None:
    known = points.dropna(subset=["performance", "retention"])
    dearest = known["price"].max()
    two_way = known.loc[[name for name in known.index if name in frontier(known[["performance", "retention"]])]].sort_values("performance")
    priced = known.assign(price=-known["price"]).dropna()
    three_way = frontier(priced)
    axes.plot(two_way["performance"], two_way["retention"], color=_GREY, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
    for method, row in known.sort_values("price", ascending=False, na_position="first", kind="stable").iterrows():
        ink, shape = colour(str(method), methods), marker(str(method), methods)
        has_price = not math.isnan(row["price"])
        share = row["price"] / dearest if has_price and dearest > 0 else 0.0
        area = _SMALL + (_LARGE - _SMALL) * share if has_price else _UNPRICED
        axes.scatter(
            row["performance"],
            row["retention"],
            s=area,
            marker=shape,
            facecolor=ink if has_price else "white",
            edgecolor="white" if has_price else ink,
            linewidth=0.6 if has_price else 1.5,
            alpha=0.9,
            zorder=3,
        )
        if method in three_way:
            ring = 1.45 * area + 60
            axes.scatter(
                row["performance"], row["retention"], s=ring, marker="o", facecolor="none", edgecolor=_INK, linewidth=1.2, zorder=2
            )
    absent = [title(str(method)) for method in points.index if method not in known.index]
    lines = [", ".join(absent[start : start + 3]) for start in range(0, len(absent), 3)]
    note = "\nMissing: " + ",\n".join(lines) if 0 < len(absent) < len(points) else "\nMissing: everything" if absent else ""
    largest = "no prices" if math.isnan(dearest) else f"largest marker: {_price(dearest)} {currency}"
    axes.text(0.02, 0.02, largest, transform=axes.transAxes, ha="left", va="bottom", color=_GREY, fontsize=8)
    axes.margins(0.14)
    limits = axes.get_xlim(), axes.get_ylim()
    axes.axhline(100, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.axvline(100, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.set(xlim=limits[0], ylim=limits[1])  # 100 is shown where it is near
    axes.set(xlabel="Normalised performance (%)" + note, ylabel="Retention (% of base)")


def _handles(methods: tuple[str, ...], panels: dict[str, pd.DataFrame]) -> list[Line2D]:
    shown = [method for method in methods if any(method in points.index for points in panels.values())]
    look = {"linestyle": "none", "markersize": 8, "markeredgecolor": "white"}
    handles = [
        Line2D([], [], marker=marker(method, methods), color=colour(method, methods), label=title(method), **look)  # type: ignore[arg-type]
        for method in shown
    ]
    handles.append(Line2D([], [], color=_GREY, linewidth=1.1, linestyle=(0, (4, 2)), label="Frontier of the two"))
    ring = {"markerfacecolor": "none", "markeredgecolor": _INK, "markersize": 12}
    handles.append(Line2D([], [], linestyle="none", marker="o", label="Frontier with price", **ring))  # type: ignore[arg-type]
    if any(points["price"].isna().any() for points in panels.values()):
        hollow = {"markerfacecolor": "white", "markeredgecolor": _GREY, "markeredgewidth": 1.5, "markersize": 8}
        handles.append(Line2D([], [], linestyle="none", marker="o", label="Without a price", **hollow))  # type: ignore[arg-type]
    return handles


def _price(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"
