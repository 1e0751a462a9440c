"""Small line drawings for the cells of tables: losses and searches."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT, MARGIN = 160, 36, 3
MOST_POINTS = 160
_DRAWING = Markup(
    '<svg class="curve" role="img" aria-label="{label}" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    '<polyline points="{points}"/>{dots}</svg>'
)
_DOT = Markup('<circle cx="{x}" cy="{y}" r="2.5"/>')


def curve(values: Sequence[float], label: str, *, marked: Sequence[int] = ()) -> Markup | None:
    """A line through values at equal distances, low values at the bottom; None where there is nothing to draw.

    Args:
        values: of which those that are not finite are left out.
        label: what the drawing says, for readers who cannot see it.
        marked: positions in `values` that get a dot.
    """
    there = [(place, value) for place, value in enumerate(values) if math.isfinite(value)]
    if not there:
        return None
    low, high = min(value for _, value in there), max(value for _, value in there)
    across = (WIDTH - 2 * MARGIN) / max(1, len(values) - 1)
    up = (HEIGHT - 2 * MARGIN) / (high - low) if high > low else 0.0

    def at(place: int, value: float) -> tuple[str, str]:
        return f"{MARGIN + across * place:.1f}", f"{HEIGHT - MARGIN - up * (value - low):.1f}"

    step = max(1, math.ceil(len(there) / MOST_POINTS))
    shown = [*there[::step], *([there[-1]] if (len(there) - 1) % step else [])]
    points = " ".join(",".join(at(*point)) for point in shown)
    dots = [_DOT.format(x=x, y=y) for place, value in there if place in marked for x, y in [at(place, value)]]
    return _DRAWING.format(label=label, width=WIDTH, height=HEIGHT, points=points, dots=Markup("").join(dots))
