"""What the reader of a comparison must know beside its numbers, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from mergebench.analysis.comparable import notes
from mergebench.analysis.labels import BASE, SPECIALIST_PREFIX
from mergebench.analysis.normalise import left_out, missing_targets
from mergebench.analysis.opened import Run
from mergebench.analysis.paired_scores import Side
from mergebench.analysis.pairing import Matches, Pair
from mergebench.analysis.scope import Scope

PERFORMANCE, RETENTION = "performance", "retention"


def remarks(
    sides: list[Side],
    cells: Mapping[str, list[pd.DataFrame]],
    scope: Scope,
    pairs: list[Pair],
    matches: Matches,
) -> list[str]:
    """Sentences on benchmarks that do not count, items and scores that lack, and circumstances that differ.

    Args:
        sides: A and B.
        cells: by measure, the cells of `normalise` of A and of B.
        scope: what was compared.
        pairs: the models that were.
        matches: their common items.
    """
    a, b = (side.run for side in sides)
    said = []
    for measure, each in cells.items():
        gone = left_out(each[0])
        if gone:
            listed = ", ".join(f"{name} on {base}" for base, name in gone)
            said.append(f"Not in the means of {measure}, where the reference is less than 2 points above zero in A or in B: {listed}.")
    partial = {key: one for key, one in matches.items() if one.common is not None and key[:3] in pairs and key[3] in _names(scope)}
    compared = [key for key in matches if key[:3] in pairs and key[3] in _names(scope)]
    if partial:
        key, one = next(iter(partial.items()))
        said.append(
            f"In {len(partial)} of {len(compared)} pairs of scores the items are not the same, and only those that both have scored are "
            f"compared, as in {key[3]} of {key[2]} on {key[0]}: {one.items}, of {one.items_a} in A and {one.items_b} in B."
        )
    for place, side in enumerate(sides):
        # A campaign does not ask specialists what they forgot, and means of whole runs are not over them.
        models = {pair[1 + place] for pair in pairs}
        means = {model for model in models if not model.startswith(SPECIALIST_PREFIX)}
        wanted = {measure: means if measure == RETENTION or side.run.model is None else models for measure in cells}
        targets = sorted({target for measure, each in cells.items() for target in missing_targets(each[place], tuple(wanted[measure]))})
        if targets:
            said.append(f"Missing in {side.name}, and with it the means: {_listed([f'{side.run.folder}/{target}' for target in targets])}.")
    lacking = [
        f"{side.run.folder}/scores/{base}/{model}/{name}.items.parquet"
        for base, *models in pairs
        for side, model in zip(sides, models, strict=True)
        for name in _names(scope)
        if (base, model, name) in side.values and (base, model, name) not in side.run.items
    ]
    if lacking:
        said.append(f"No interval where items are not there: {_listed(lacking)}.")
    said += _circumstances(a, b, pairs, scope)
    return said


def _circumstances(a: Run, b: Run, pairs: list[Pair], scope: Scope) -> list[str]:
    """Differences that may explain others."""
    found: dict[str, set[str]] = {}
    for base, one, other in pairs:
        for name in _names(scope):
            records = a.records.get((base, one, name)), b.records.get((base, other, name))
            if records[0] is not None and records[1] is not None:
                for what, text in notes(records[0], records[1]).items():
                    found.setdefault(what, set()).add(text)
    said = [f"The runs also differ in {what}: {'; '.join(sorted(texts)[:3])}." for what, texts in sorted(found.items())]
    for base in scope.bases:
        digests = [{r["weights_digest"] for (x, m, _), r in run.records.items() if (x, m) == (base, BASE) and r.get("weights_digest")}
                   for run in (a, b)]  # fmt: skip
        if digests[0] and digests[1] and digests[0] != digests[1]:
            said.append(f"The weights of the base {base} are not the same in both runs.")
    return said


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _names(scope: Scope) -> list[str]:
    return [benchmark.name for benchmark in scope.benchmarks]
