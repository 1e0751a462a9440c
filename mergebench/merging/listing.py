"""The list of methods and presets, as text, from their declarations."""

from __future__ import annotations

import inspect
import textwrap

from mergebench.merging.presets import PRESETS, Preset, Settings
from mergebench.merging.registry import Method, methods
from mergebench.merging.scope import ALL

WIDTH = 110


def listing() -> str:
    """Every method with its reference, needs, parameters and the paper's grid, one paragraph each; then the presets."""
    paragraphs = [_method(method) for method in methods().values()]
    paragraphs += [_preset(name, preset) for name, preset in PRESETS.items()]
    return "\n\n".join(paragraphs) + "\n"


def _method(method: Method) -> str:
    summary = (inspect.getdoc(method.direction) or "").split("\n", maxsplit=1)[0]
    lines = [
        summary,
        *(["a control, not a method"] if method.control else []),
        f"needs: {', '.join(_needs(method))}; works on one {method.scope} at a time",
    ]
    for parameter in method.parameters.values():
        lines.append(f"{parameter.name}: {parameter.describe()}, default {parameter.default!r}")
    if method.grid:
        points = "; ".join(f"{name} {', '.join(f'{value:g}' for value in values)}" for name, values in method.grid.items())
        lines.append(f"grid: {points}")
    if method.note:
        lines.append(method.note)
    return _paragraph(f"{method.name}: {method.title} ({method.reference.paper}, {method.reference.url})", lines)


def _preset(name: str, preset: Preset) -> str:
    lines = [f"{method}: {_settings(found)}" for method, found in (preset.methods or {}).items()]
    return _paragraph(f"preset {name}: {preset.title}", [*lines, *([preset.notes] if preset.notes else [])])


def _settings(found: Settings) -> str:
    parts = [f"{name} {value}" for name, value in found.parameters.items()]
    parts += [f"scope {found.scope}"] if found.scope != ALL else []
    parts += [f"arithmetic {found.arithmetic}"] if found.arithmetic != "float32" else []
    return (", ".join(parts) or "defaults") + (f". {found.notes}" if found.notes else "")


def _needs(method: Method) -> list[str]:
    data = {
        "nothing": "no data",
        "training": "samples of the training data",
        "validation": "validation scores",
    }[method.data]
    return [data, *(f"{kind} statistics" for kind in method.statistics), *(["spectra"] if method.spectra else [])]


def _paragraph(title: str, lines: list[str]) -> str:
    return "\n".join([title, *(textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ") for line in lines)])
