"""The result figures, drawn from the same evidence as the tables, as PNG, SVG and PDF.

Reruns are byte-identical: no dates, and a fixed salt for the identifiers in SVG.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mergebench.analysis import group_figure, heatmaps, runtime_figure
from mergebench.analysis.cost_table import shown_bases
from mergebench.analysis.efficiency import BEFORE_GRPO, MATHEMATICS
from mergebench.analysis.inference_tables import rank_tests
from mergebench.analysis.labels import BASE, MULTITASK, UNTOUCHED_BASE, colour, marker, model_title, signed, title
from mergebench.analysis.normalise import domain_scores
from mergebench.analysis.panels import missing_from, panels
from mergebench.analysis.pareto_figure import draw_pareto
from mergebench.analysis.pareto_table import points, published_points
from mergebench.analysis.rank_figure import critical_difference as draw_ranks
from mergebench.analysis.tables import Evidence

_STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "legend.frameon": False,
    "svg.hashsalt": "mergebench",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}
_VARYING = {"png": ("Software",), "svg": ("Date",), "pdf": ("CreationDate", "Creator", "Producer")}
"""Metadata that a file does not get, because they would change its bytes from day to day or with the version of the library."""
_GREY = "#666666"
_ALARM = "#B00020"
_ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
_TRAINED = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_ALGORITHM, _VALIDATION = "#0072B2", "#E69F00"


def multitask_performance(evidence: Evidence) -> Figure:
    """Figure 2 of the paper: normalised performance of every method, one panel per base."""
    methods = evidence.scope.methods
    figure, panels = _panels(evidence, width=4.6, height=0.75 + 0.28 * len(methods))
    values = evidence.summary
    top = _upper_limit(values["performance"])
    controls: dict[str, dict[str, Any]] = {
        control: {"color": colour(control, methods), "linestyle": dashes}
        for control, dashes in (
            (UNTOUCHED_BASE, (0, (2, 2))),
            *((each, (0, (1, 2, 5, 2))) for each in evidence.scope.controls),
            (MULTITASK, (0, (6, 2))),
        )
        if control in evidence.scope.compared
    }
    for base, axes in panels.items():
        for row, method in enumerate(methods):
            value, error = values.loc[(base, method), ["performance", "performance_se"]]
            if math.isnan(value):
                axes.text(1, row, "missing", va="center", color=_GREY, style="italic")
                continue
            spread = 0.0 if math.isnan(error) else error
            axes.barh(row, value, color=colour(method, methods), height=0.72)
            axes.errorbar(value, row, xerr=spread, color="#222222", capsize=2, linewidth=1)
            axes.text(value + spread + 1.5, row, f"{value:.1f}", va="center", bbox=_ON_WHITE)
        for control, look in controls.items():
            value = values.loc[(base, control), "performance"]
            if not math.isnan(value):
                axes.axvline(value, linewidth=1.3, zorder=0, **look)
        axes.set(xlim=(0, 1.17 * top), ylim=(len(methods) - 0.4, -0.6), xlabel="Normalised performance (%)")
        axes.set_yticks(range(len(methods)), [title(method) for method in methods])
        axes.tick_params(axis="y", length=0)
    handles = [Line2D([], [], label=title(control), **look) for control, look in controls.items()]
    handles.append(Line2D([], [], color="#222222", marker="|", markersize=7, label="± one standard error"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles) if len(panels) > 1 else 2)
    return figure


def performance_forgetting(evidence: Evidence) -> Figure:
    """Figure 3 of the paper: normalised performance against retention, the multitask model and base marked."""
    methods = evidence.scope.methods
    figure, panels = _panels(evidence, width=4.2, height=3.6, beside=1.8)
    control_sizes = {UNTOUCHED_BASE: 10, MULTITASK: 13}
    looks: dict[str, dict[str, Any]] = {}
    for name in evidence.scope.compared:
        looks[name] = {"color": colour(name, methods), "marker": marker(name, methods), "markersize": control_sizes.get(name, 8)}
    for base, axes in panels.items():
        axes.axhline(100, color="#bbbbbb", linewidth=0.8, zorder=0)
        axes.axvline(100, color="#bbbbbb", linewidth=0.8, zorder=0)
        absent = []
        for name, look in looks.items():
            x, error, y = evidence.summary.loc[(base, name), ["performance", "performance_se", "retention"]]
            if math.isnan(x) or math.isnan(y):
                absent.append(title(name))
                continue
            if not math.isnan(error):
                axes.errorbar(x, y, xerr=error, color=look["color"], linewidth=0.8, alpha=0.6, zorder=1)
            axes.plot(x, y, linestyle="none", markeredgecolor="white", markeredgewidth=0.6, alpha=0.9, zorder=2, **look)
        axes.margins(0.08)
        note = missing_from(absent, len(looks))
        axes.set(xlabel="Normalised performance (%)" + note, ylabel="Retention (% of base)")
    handles = [Line2D([], [], linestyle="none", label=title(name), **look) for name, look in looks.items()]
    figure.legend(handles=handles, loc="outside right center")
    return figure


def runtime(evidence: Evidence) -> Figure:
    """Figure 4 of the paper: run time of every method, split into algorithm and validation."""
    methods = evidence.scope.methods
    figure, panels = _panels(evidence, width=4.6, height=0.75 + 0.28 * len(methods))
    for base, axes in panels.items():
        costs = evidence.costs.loc[base]
        total = costs["algorithm_seconds"] + costs["validation_seconds"]
        longest = total.max() if total.notna().any() else 1.0
        for row, method in enumerate(methods):
            if math.isnan(total[method]):
                axes.text(0.01 * longest, row, "missing", va="center", color=_GREY, style="italic")
                continue
            algorithm = costs.loc[method, "algorithm_seconds"]
            axes.barh(row, algorithm, color=_ALGORITHM, height=0.72)
            axes.barh(row, total[method] - algorithm, left=algorithm, color=_VALIDATION, height=0.72)
            axes.text(total[method] + 0.015 * longest, row, _duration(total[method]), va="center")
        axes.set(xlim=(0, 1.2 * max(longest, 1e-9)), ylim=(len(methods) - 0.4, -0.6), xlabel="Wall-clock seconds")
        axes.set_yticks(range(len(methods)), [title(method) for method in methods])
        axes.tick_params(axis="y", length=0)
    handles = [
        Line2D([], [], linestyle="none", marker="s", markersize=9, color=_ALGORITHM, label="Algorithm"),
        Line2D([], [], linestyle="none", marker="s", markersize=9, color=_VALIDATION, label="Validation"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def specialisation(evidence: Evidence) -> Figure:
    """Domain scores of the base and its specialists as a heat map, coloured by the gain over the base."""
    scope = evidence.scope
    points = domain_scores(evidence.scores, scope) * 100
    models = (BASE, *scope.specialists)
    gains = {base: points.loc[base].loc[list(models)] - points.loc[(base, BASE)] for base in scope.bases}
    sizes = np.concatenate([gain.to_numpy().ravel() for gain in gains.values()])
    limit = max(10.0, float(np.nanmax(np.abs(sizes)))) if np.isfinite(sizes).any() else 10.0
    figure, panels = _panels(evidence, width=5.9, height=0.7 + 0.4 * len(models))
    for base, axes in panels.items():
        image = axes.imshow(gains[base], cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
        for row, model in enumerate(models):
            for column, domain in enumerate(scope.domains):
                score, gain = points.loc[(base, model), domain], gains[base].loc[model, domain]
                missing = math.isnan(score)
                dark = not math.isnan(gain) and abs(gain) > 0.6 * limit
                label = "missing" if missing else f"{score:.0f}"
                if not missing and model != BASE and not math.isnan(gain):
                    label += f" ({signed(gain, 0)})"
                ink = _GREY if missing else "white" if dark else "black"
                axes.text(column, row, label, ha="center", va="center", color=ink, fontsize=8)
        axes.set_xticks(range(len(scope.domains)), [title(domain) for domain in scope.domains])
        axes.set_yticks(range(len(models)), [model_title(model) for model in models])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=list(panels.values()), label="Gain over the base (points)", shrink=0.8)
    return figure


def training(evidence: Evidence) -> Figure:
    """Losses of every trained model against the share of its steps; what GRPO minimises is not a loss of that kind and is left out."""
    scope, losses = evidence.scope, evidence.losses
    models = [BEFORE_GRPO, *scope.specialists, *([MULTITASK] if MULTITASK in scope.compared else [])]
    reinforced = set(losses[losses["model"] == BEFORE_GRPO]["base"])
    figure, panels = _panels(evidence, width=4.4, height=2.9)
    drawn: dict[str, Line2D] = {}
    for base, axes in panels.items():
        for model in models:
            steps = losses[(losses["base"] == base) & (losses["model"] == model)].sort_values("step")
            if steps.empty or (model == MATHEMATICS and base in reinforced):
                continue
            ink = _TRAINED[models.index(MATHEMATICS if model == BEFORE_GRPO and MATHEMATICS in models else model) % len(_TRAINED)]
            (line,) = axes.plot(100 * steps["step"] / steps["step"].max(), steps["loss"], color=ink, linewidth=1.2)
            drawn.setdefault(MATHEMATICS if model == BEFORE_GRPO else model, line)
        if not axes.lines:
            axes.text(0.5, 0.5, "missing", transform=axes.transAxes, ha="center", va="center", color=_GREY, style="italic")
        axes.set(xlabel="Steps (%)", ylabel="Loss (nats per response token)", xlim=(0, 100))
        axes.set_ylim(bottom=0)
    if drawn:
        names = [model for model in models if model in drawn]
        handles = [Line2D([], [], color=drawn[model].get_color(), label=model_title(model)) for model in names]
        figure.legend(handles=handles, loc="outside lower center", ncols=3 if len(panels) > 1 else 2)
    return figure


def critical_difference(evidence: Evidence) -> Figure:
    """Mean ranks of this campaign and of the paper's tables, with the methods that Nemenyi's test cannot tell apart."""
    tests = rank_tests(evidence)
    names = {"performance": "Normalised performance, this campaign", "retention": "Retention, this campaign"}
    names |= {"published_performance": "Normalised performance, paper's Table 7", "published_retention": "Retention, paper's Table 8"}
    return draw_ranks({names[name]: test for name, test in tests.items()}, evidence.scope.methods)


def pareto(evidence: Evidence) -> Figure:
    """Performance, retention and price of every method on every base, overall, and the first two in the paper's tables."""
    scope = evidence.scope
    panels = {base: points(evidence, base) for base in shown_bases(evidence)} | {"Paper's tables, overall": published_points()}
    methods = tuple(dict.fromkeys([*scope.methods, *(str(method) for panel in panels.values() for method in panel.index)]))
    return draw_pareto(panels, methods, scope.prices["currency"] if scope.prices else "")


FIGURES: dict[str, Callable[[Evidence], Figure]] = {
    "multitask_performance": multitask_performance,
    "multitask_groups": group_figure.multitask_groups,
    "performance_forgetting": performance_forgetting,
    "critical_difference": critical_difference,
    "runtime": runtime,
    "performance_runtime": runtime_figure.performance_runtime,
    "pareto": pareto,
    "specialisation": specialisation,
    "training": training,
    "interference_cosine": heatmaps.cosine,
    "interference_sign_conflict": heatmaps.sign_conflict,
    "interference_overlap": heatmaps.overlap,
    "interference_norms": heatmaps.norms,
}


def draw(name: str, evidence: Evidence) -> Figure:
    """Draw one of `FIGURES` in the common style, with the warnings of the scope."""
    with matplotlib.rc_context(_STYLE):
        figure = FIGURES[name](evidence)
        if evidence.scope.warnings:
            _warn(figure, evidence.scope.warnings)
        return figure


def save(figure: Figure, path: Path, file_format: str) -> None:
    """Write a drawn figure to `path` as `png`, `svg` or `pdf` (fonts embedded as TrueType), whatever the path's suffix."""
    with matplotlib.rc_context(_STYLE):
        metadata = dict.fromkeys(_VARYING[file_format])
        figure.savefig(path, format=file_format, dpi=150, metadata=metadata)


def _panels(evidence: Evidence, *, width: float, height: float, beside: float = 0.0) -> tuple[Figure, dict[str, Axes]]:
    """A figure with one titled panel per base; see `panels`."""
    return panels(evidence.scope.bases, width=width, height=height, beside=beside)


def _warn(figure: Figure, warnings: tuple[str, ...]) -> None:
    """Write warnings above the panels, in the picture itself, which travels without its caption."""
    letters = int(figure.get_figwidth() * 10)  # of bold type in one inch
    lines = [line for warning in warnings for line in textwrap.wrap(f"Warning: {warning}", letters)]
    figure.set_figheight(figure.get_figheight() + 0.1 + 0.16 * len(lines))
    figure.suptitle("\n".join(lines), color=_ALARM, fontsize=9, weight="bold")


def _upper_limit(values: Any) -> float:
    return max(100.0, float(values.max())) if values.notna().any() else 100.0


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s" if seconds < 7200 else f"{seconds / 3600:.1f} h"
