"""The table of how task vectors interfere: every measure in CSV, whole models for reading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from mergebench.analysis.interference import MEASURES, OUTSIDE, Interference
from mergebench.analysis.labels import title
from mergebench.analysis.scope import Scope
from mergebench.analysis.tables import NOT_APPLICABLE, Evidence, Table
from mergebench.vectors.modules import MODULES

ALL, NONE = "all", "none"
_PLACE = ["base", "layer", "module", "first", "second"]


def interference(evidence: Evidence) -> Table:
    """Norms, cosines, sign conflicts and overlaps of the task vectors, by base, layer, module and pair."""
    scope, found = evidence.scope, evidence.interference
    absent = [f"`vectors/{base}/interference.parquet`" for base in scope.bases if base not in found.bases]
    return Table(
        "interference",
        rows(found, scope),
        [
            "Rule: cosine of two task vectors, and the share of the entries that both move which they move in opposite directions; of the "
            "whole model. Two unrelated vectors have a cosine near 0 and half of the signs opposite. Norm: in % of the base's.",
            "Elected: of a task vector's largest entries (a fifth of the model; all that equal the smallest of them count), those whose "
            "sign is the one that TIES elects.",
            "The CSV file has the same by layer, kind of module and both (means over pairs), the sign conflicts and overlaps of the "
            "largest entries, what overlap chance alone would give, and the share of entries at which any two conflict. n/a: there is "
            "nothing to divide by, or the measure does not apply to the row.",
            *([f"Missing until these are made: {', '.join(absent)}."] if absent else []),
        ],
        display=_matrix(found, scope),
        headings={
            "base": "Base",
            "domain": "Task vector",
            "relative_norm_percent": "Norm (%)",
            **{domain: title(domain) for domain in scope.domains},
            "elected_percent": "Elected (%)",
        },
        decimals={"relative_norm_percent": 2},
    )


def rows(found: Interference, scope: Scope) -> pd.DataFrame:
    """Every measure as a long table with the columns `base`, `layer`, `module`, `first`, `second` and `MEASURES`.

    Whole models, kinds of modules and layers have a row per task vector (`second` empty), per pair, and one for all (`first` and `second`
    `ALL`): means, and what counts all task vectors together. Cells of layer and module have the last alone. A base that was not measured
    has one row of NaN.
    """
    order = {domain: place for place, domain in enumerate(scope.domains)}
    parts = []
    for level, cut in ((found.whole, []), (found.modules, ["module"]), (found.layers, ["layer"]), (found.cells, ["layer", "module"])):
        everything = dict.fromkeys({"layer", "module"} - {*cut}, ALL)
        parts.append(level.means.reset_index().assign(first=ALL, second=ALL, **everything))
        if len(cut) < 2:
            parts.append(level.own.reset_index(names=["base", *cut, "first"]).assign(second="", **everything))
            pairs = level.pairs.reset_index()
            parts.append(pairs[pairs["first"].map(order) < pairs["second"].map(order)].assign(**everything))
    measured = pd.concat([part for part in parts if len(part)], ignore_index=True) if found.bases else pd.DataFrame(columns=_PLACE)
    measured = measured.reindex(columns=[*_PLACE, *MEASURES]).astype(object)
    absent = pd.DataFrame({"base": [base for base in scope.bases if base not in found.bases]}, dtype=object)
    absent = absent.assign(**dict.fromkeys(_PLACE[1:], ALL), **dict.fromkeys(MEASURES, np.nan))
    frame = pd.concat([measured.where(measured.notna(), NOT_APPLICABLE), absent.astype(object)], ignore_index=True)
    ranked = [_places(frame["base"], scope.bases), frame["layer"].map(lambda layer: OUTSIDE - 1 if layer == ALL else layer)]
    ranked += [_places(frame["module"], (ALL, *MODULES)), *(_places(frame[side], (ALL, *scope.domains, "")) for side in _PLACE[3:])]
    frame = frame.iloc[np.lexsort([each.to_numpy(dtype=float) for each in reversed(ranked)])].reset_index(drop=True)
    frame["layer"] = frame["layer"].map(lambda layer: NONE if layer == OUTSIDE else str(layer))
    return frame


def _places(names: pd.Series, known: tuple[str, ...]) -> pd.Series:
    return names.map({name: place for place, name in enumerate(known)})


def _matrix(found: Interference, scope: Scope) -> pd.DataFrame:
    """Whole models for reading: per base and task vector its relative norm, and cosine and sign conflicts with every other."""
    lines = []
    for base in scope.bases:
        for domain in scope.domains:
            own = found.whole.own.loc[(base, domain)].fillna(NOT_APPLICABLE) if (base, domain) in found.whole.own.index else None
            others = {other: _cell(found, base, domain, other) for other in scope.domains}
            ends = {name: np.nan if own is None else own[name] for name in ("relative_norm_percent", "elected_percent")}
            line = {"base": base, "domain": title(domain), "relative_norm_percent": ends["relative_norm_percent"], **others}
            lines.append({**line, "elected_percent": ends["elected_percent"]})
    return pd.DataFrame(lines)


def _cell(found: Interference, base: str, domain: str, other: str) -> Any:
    if domain == other:
        return ""
    if (base, domain, other) not in found.whole.pairs.index:
        return np.nan
    pair = found.whole.pairs.loc[(base, domain, other)]
    cosine, conflict = pair["cosine"], pair["sign_conflict_percent"]
    return NOT_APPLICABLE if np.isnan(cosine) or np.isnan(conflict) else f"{cosine:.3f}, {conflict:.0f} %"


TABLES: dict[str, Callable[[Evidence], Table]] = {"interference": interference}
