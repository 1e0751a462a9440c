"""The losses of every model that was trained, a small curve each."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mergebench.analysis.labels import model_title
from mergebench.analysis.losses import read_losses
from mergebench.report.curves import curve
from mergebench.report.grids import Cell, Grid
from mergebench.report.material import Material


def logged(material: Material) -> pd.DataFrame:
    """Steps and losses of the campaign's bases (`analysis.losses.COLUMNS`)."""
    losses = read_losses(material.paths("losses"))
    return losses[losses["base"].isin(material.scope.bases)].sort_values(["base", "model", "step"], ignore_index=True)


def rows(losses: pd.DataFrame) -> list[dict[str, Any]]:
    """The same for CSV."""
    return losses.to_dict("records")  # type: ignore[return-value]


def grid(losses: pd.DataFrame, bases: tuple[str, ...]) -> Grid:
    """A row per trained model: the steps, the first and the last loss, and the curve between them."""
    rows: list[list[Cell | str]] = []
    for base in bases:
        for model, steps in losses[losses["base"] == base].groupby("model", sort=True):
            values = steps.sort_values("step")["loss"].tolist()
            name = model_title(str(model))
            rows.append(
                [
                    base,
                    Cell(name, title=str(model)),
                    str(int(steps["step"].max())),
                    f"{values[0]:.3f}",
                    f"{values[-1]:.3f}",
                    Cell("", drawing=curve(values, f"losses of {name} of {base} by step")),
                ]
            )
    return Grid.of(["Base", "Model", "Steps", "First logged loss", "Last logged loss", "Losses"], rows)
