"""Figures of several panels, and how they say what is not there yet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

_COLUMNS = 2


def panels(names: Sequence[str], *, width: float, height: float, beside: float = 0.0) -> tuple[Figure, dict[str, Axes]]:
    """A figure with one titled panel per name, two abreast.

    Sizes are in inches: width and height of a panel, and the space beside all panels for a legend.
    """
    columns = min(_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(width * columns + beside, height * rows + 0.5), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in grid[len(names) :]:
        spare.remove()
    made = dict(zip(names, grid, strict=False))
    for name, axes in made.items():
        axes.set_title(name)
    return figure, made


def missing_from(absent: Sequence[str], total: int) -> str:
    """Lines under an axis label that name what the panel lacks, three to a line."""
    if not absent:
        return ""
    if len(absent) == total:
        return "\nMissing: everything"
    lines = [", ".join(absent[start : start + 3]) for start in range(0, len(absent), 3)]
    return "\nMissing: " + ",\n".join(lines)
