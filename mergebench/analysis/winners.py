"""What tuning has chosen: the winner of each method's grid, its objective, and how much that depends on the seed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import yaml

from mergebench.analysis.scope import Scope
from mergebench.errors import MergebenchError

COLUMNS = ["base", "method", "parameters", "objective", "seeds", "spread", "candidates", "evaluations"]


def read_winners(winners: Iterable[Path], scope: Scope) -> pd.DataFrame:
    """Read `tuning/<base>/<method>/best.yaml` of every search of the campaign.

    Returns:
        Frame with columns `COLUMNS`: base and method from the path; parameters as text; objective, the mean over domains of the
        normalised scores, over seeds where there are several; seeds, their number; spread, the standard deviation of the objective over
        seeds (NaN for one); candidates of the grid; evaluations, each seed counted, a block of items as its share.

    Raises:
        MergebenchError: a file is not what a search leaves.
    """
    ours = [path for path in map(Path, winners) if path.parent.parent.name in scope.bases and path.parent.name in scope.tuned]
    rows = [_winner(path) for path in ours]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"objective": float, "spread": float, "evaluations": float})


def _winner(path: Path) -> tuple[object, ...]:
    try:
        best = yaml.safe_load(path.read_text(encoding="utf-8"))
        numbers = (best["objective"], len(best.get("seeds", [0])), best.get("spread", math.nan), best["candidates"], best["evaluations"])
        return (path.parent.parent.name, path.parent.name, _text(best["parameters"]), *numbers)
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())
        raise MergebenchError(f"{path} does not hold what a search has chosen ({said}); delete it and tune again.") from None


def _text(parameters: dict[str, object]) -> str:
    """``density 0.2, scale 0.5``; values per domain by their names."""
    found = []
    for name, value in sorted(parameters.items()):
        if isinstance(value, dict):
            found += [f"{name}.{domain} {one:g}" for domain, one in sorted(value.items())]
        elif value is not None:
            found.append(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(found)
