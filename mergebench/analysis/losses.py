"""The losses that training has logged, by base and model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from mergebench.errors import MergebenchError

COLUMNS = ["base", "model", "step", "loss"]


def read_losses(paths: Iterable[Path]) -> pd.DataFrame:
    """Steps and losses from logs `<base>/<model>/losses.jsonl`: a line each, with the mean loss since the line before.

    Raises:
        MergebenchError: a line is not what training logs.
    """
    lines = []
    for path in sorted(paths):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                found = json.loads(line)
                lines.append((path.parents[1].name, path.parent.name, int(found["step"]), float(found["loss"])))
            except (ValueError, KeyError, TypeError):
                raise MergebenchError(
                    f"{path}, line {number}: expected a JSON object with step and loss; train this model again."
                ) from None
    return pd.DataFrame(lines, columns=COLUMNS)
