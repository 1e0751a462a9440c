"""Figures inside the page: as SVG where that is small, else as PNG."""

from __future__ import annotations

import base64
from pathlib import Path

MOST_SVG_BYTES = 600_000
"""A larger SVG (thousands of points) makes a page slow to open; its PNG is shown instead."""
TYPES = {
    "csv": "text/csv;charset=utf-8",
    "md": "text/markdown;charset=utf-8",
    "pdf": "application/pdf",
    "png": "image/png",
    "svg": "image/svg+xml",
    "tex": "text/x-tex;charset=utf-8",
}


def data_uri(content: bytes, suffix: str) -> str:
    """A file as an address that holds it."""
    return f"data:{TYPES[suffix]};base64,{base64.b64encode(content).decode('ascii')}"


def picture(formats: dict[str, Path]) -> str:
    """The address of a figure's picture, from its files by suffix; "" where none was made.

    As an image, not inline: identifiers of two figures cannot clash, and nothing in it can run.
    """
    svg, png = formats.get("svg"), formats.get("png")
    if svg is not None and (png is None or svg.stat().st_size <= MOST_SVG_BYTES):
        return data_uri(svg.read_bytes(), "svg")
    return data_uri(png.read_bytes(), "png") if png is not None else ""
