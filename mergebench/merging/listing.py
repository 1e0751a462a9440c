"""The list of methods, as text, from their declarations."""

from __future__ import annotations

import inspect
import textwrap

from mergebench.merging.registry import Method, methods

WIDTH = 110


def listing() -> str:
    """Every method with its reference, needs, parameters and the paper's grid, one paragraph each."""
    return "\n\n".join(_paragraph(method) for method in methods().values()) + "\n"


def _paragraph(method: Method) -> str:
    summary = (inspect.getdoc(method.direction) or "").split("\n", maxsplit=1)[0]
    lines = [
        f"{method.name}: {method.title} ({method.reference.paper}, {method.reference.url})",
        summary,
        f"needs: {', '.join(_needs(method))}; works on one {method.scope} at a time",
    ]
    for parameter in method.parameters.values():
        lines.append(f"{parameter.name}: {parameter.describe()}, default {parameter.default!r}")
    if method.grid:
        points = "; ".join(f"{name} {', '.join(f'{value:g}' for value in values)}" for name, values in method.grid.items())
        lines.append(f"grid: {points}")
    if method.note:
        lines.append(method.note)
    body = [textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ") for line in lines[1:]]
    return "\n".join([lines[0], *body])


def _needs(method: Method) -> list[str]:
    data = {
        "nothing": "no data",
        "training": "samples of the training data",
        "validation": "validation scores",
    }[method.data]
    return [data, *(f"{kind} statistics" for kind in method.statistics), *(["spectra"] if method.spectra else [])]
