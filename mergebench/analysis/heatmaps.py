"""Heat maps of how task vectors interfere: per base a matrix on the left, and layers by kinds of modules on the right."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mergebench.analysis.interference import OUTSIDE, Level
from mergebench.analysis.labels import title
from mergebench.vectors.modules import EMBEDDINGS, MODULES, NORMS

if TYPE_CHECKING:
    from mergebench.analysis.tables import Evidence

_GREY, _EMPTY = "#666666", "#eeeeee"
_WIDTH, _MATRIX, _SHARES = 11.5, 3.5, (1.0, 1.9)  # inches, and how the two panels divide the width
_MOST_TICKS = 16


@dataclass(frozen=True)
class Colours:
    """One scale for a whole figure: its label, colour map and norm, and on which side values may lie beyond it."""

    label: str
    cmap: Colormap
    norm: Normalize
    beyond: Literal["neither", "both", "max"] = "neither"

    def on(self, value: float) -> str:
        """The ink that is readable on the colour of a value."""
        red, green, blue, _ = self.cmap(self.norm(value))
        return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "black"


def cosine(evidence: Evidence) -> Figure:
    """Cosines of the task vectors of every pair, and their mean over the pairs by layer and module."""
    found = evidence.interference
    limit = max(0.1, _largest(found.whole.pairs["cosine"].abs(), _ordinary(found.cells.means["cosine"]).abs()))
    colours = Colours("Cosine", matplotlib.colormaps["PuOr_r"], Normalize(-limit, limit), "both")
    return _draw(evidence, colours, _pairs("cosine", "cosine"), "cosine", "Mean cosine over the pairs", _two_decimals)


def sign_conflict(evidence: Evidence) -> Figure:
    """Shares of opposite signs: of all entries that both move above the diagonal, of entries that are large in both below it."""
    found = evidence.interference
    names = ["sign_conflict_percent", "largest_sign_conflict_percent"]
    shares = (*(found.whole.pairs[name] for name in names), _ordinary(found.cells.means[names[0]]))
    limit = max(10.0, _largest(*((share - 50).abs() for share in shares)))
    colours = Colours("Opposite signs (%)", matplotlib.colormaps["RdBu_r"], TwoSlopeNorm(50, 50 - limit, 50 + limit), "both")
    text = "Mean share of opposite signs over the pairs"
    remark = "above the diagonal all entries, below it the largest"
    return _draw(evidence, colours, _pairs(*names), names[0], text, lambda share: f"{share:.0f}", remark=remark)


def norms(evidence: Evidence) -> Figure:
    """Norms relative to the base's: of every task vector by module, and their mean over the domains by layer and module."""
    found = evidence.interference
    name = "relative_norm_percent"
    top = _largest(found.modules.own[name], found.cells.means[name])
    colours = Colours("Norm (% of the base's)", matplotlib.colormaps["viridis"], Normalize(0, max(top, 1e-6)))
    return _draw(evidence, colours, _by_module(name), name, "Mean relative norm over the task vectors", _three_digits)


def overlap(evidence: Evidence) -> Figure:
    """How many of the largest entries two task vectors share, as a multiple of what chance would give."""
    found = evidence.interference
    name = "times_chance"
    top = max(1.5, _largest(found.whole.pairs[name], _ordinary(found.cells.means[name])))
    colours = Colours("Common largest entries / by chance", matplotlib.colormaps["PuOr_r"], TwoSlopeNorm(1, 0, top), "max")
    second = (_pairs(*["overlap_percent"] * 2), lambda share: f"{share:.0f} %")
    remark = "times chance; share of the smaller set"
    return _draw(evidence, colours, _pairs(name, name), name, "Mean over the pairs", lambda v: f"×{v:.2f}", second=second, remark=remark)


Matrix = Callable[["Evidence", str], pd.DataFrame]
Form = Callable[[float], str]


def _draw(
    evidence: Evidence,
    colours: Colours,
    matrix: Matrix,
    cell: str,
    heading: str,
    form: Form,
    *,
    second: tuple[Matrix, Form] | None = None,
    remark: str = "",
) -> Figure:
    """The matrix and the cells of every base, one base below the other.

    Args:
        evidence: Everything.
        colours: The scale of both panels.
        matrix: What stands on the left, and is written there as `form` says.
        cell: The measure on the right, headed by `heading`.
        second: What is written below each number of the matrix.
        remark: What the matrix shows.
    """
    bases = evidence.scope.bases
    figure = Figure(figsize=(_WIDTH, _MATRIX * len(bases)), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(bases), 2, squeeze=False, width_ratios=_SHARES)
    for base, (left, right) in zip(bases, grid, strict=True):
        left.set_title(base)
        right.set_title(heading, weight="normal")
        if base not in evidence.interference.bases:
            for axes in (left, right):
                axes.set_axis_off()
                axes.text(0.5, 0.5, "missing", transform=axes.transAxes, ha="center", va="center", color=_GREY, style="italic")
            continue
        table = matrix(evidence, base)
        _image(left, table, colours)
        left.set_xticks(range(table.shape[1]), [_label(name) for name in table.columns], rotation=35, ha="right", rotation_mode="anchor")
        left.set_xlabel(remark, color=_GREY)
        _write(left, table, colours, form)
        if second is not None:
            _write(left, second[0](evidence, base).where(table.notna()), colours, second[1], below=table)
        cells = _cells(evidence.interference.cells, base, cell)
        figure.colorbar(_image(right, cells, colours), ax=right, label=colours.label, pad=0.02, extend=colours.beyond)
        step = math.ceil(cells.shape[1] / _MOST_TICKS)
        shown = [place for place, name in enumerate(cells.columns) if not name.isdigit() or int(name) % step == 0]
        right.set_xticks(shown, [cells.columns[place] for place in shown])
        right.set_xlabel("Layer")
    return figure


def _image(axes: Axes, table: pd.DataFrame, colours: Colours):  # type: ignore[no-untyped-def]
    axes.patch.set(facecolor="white", hatch="////", edgecolor=_EMPTY)
    image = axes.imshow(table.to_numpy(dtype=float), cmap=colours.cmap, norm=colours.norm, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(table)), [_label(name) for name in table.index])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image


def _write(axes: Axes, table: pd.DataFrame, colours: Colours, form: Form, below: pd.DataFrame | None = None) -> None:
    """Write the numbers of a table; if they stand below others, these decide the ink."""
    under = (table if below is None else below).to_numpy(dtype=float)
    for row, values in enumerate(table.to_numpy(dtype=float)):
        for column, value in enumerate(values):
            if not math.isnan(value):
                place, size = (row, 8) if below is None else (row + 0.3, 6.5)
                ink = colours.on(under[row, column])
                # Inside the panel whatever the layout, which need not measure it.
                axes.text(column, place, form(value), ha="center", va="center", color=ink, fontsize=size).set_in_layout(False)


def _label(name: str) -> str:
    return name if len(name) == 1 else title(name)


def _pairs(above: str, below: str) -> Matrix:
    """A measure of all pairs: domains by domains, of which one stands above the diagonal and one below."""

    def make(evidence: Evidence, base: str) -> pd.DataFrame:
        domains, pairs = list(evidence.scope.domains), evidence.interference.whole.pairs
        mine = pairs[pairs.index.get_level_values("base") == base].droplevel("base")
        tables = [mine[name].unstack("second").reindex(index=domains, columns=domains) for name in (above, below)]
        return tables[0].where(np.triu(np.ones(tables[0].shape, dtype=bool)), tables[1])

    return make


def _by_module(name: str) -> Matrix:
    """A measure of the task vectors: domains by kinds of modules."""

    def make(evidence: Evidence, base: str) -> pd.DataFrame:
        table = evidence.interference.modules.own[name].loc[base].unstack("module")
        return table.reindex(index=list(evidence.scope.domains), columns=[name for name in MODULES if name in table.columns])

    return make


def _cells(level: Level, base: str, name: str) -> pd.DataFrame:
    """Kinds of modules by layers; what belongs to no layer stands before the first or after the last."""
    known = level.means[name].loc[base].reset_index()
    ends = np.where(known["module"] == EMBEDDINGS, "in", "out")
    known["layer"] = known["layer"].astype(str).where(known["layer"] != OUTSIDE, ends)
    layers = sorted((layer for layer in set(known["layer"]) if layer.isdigit()), key=int)
    columns = [*("in" for _ in range("in" in set(known["layer"]))), *layers, *("out" for _ in range("out" in set(known["layer"])))]
    table = known.pivot(index="module", columns="layer", values=name)
    return table.reindex(index=[module for module in MODULES if module in table.index], columns=columns)


def _ordinary(cells: pd.Series) -> pd.Series:
    """Without norms: they have so few entries that they alone would decide a scale, and may lie beyond it."""
    return cells[cells.index.get_level_values("module") != NORMS]


def _largest(*values: pd.Series) -> float:
    """The largest of all numbers; 0 where there is none."""
    found = np.concatenate([each.to_numpy(dtype=float) for each in values])
    return float(np.nanmax(found)) if np.isfinite(found).any() else 0.0


def _two_decimals(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}"
