"""What is missing, and the command that makes it."""

from __future__ import annotations

from dataclasses import dataclass

from mergebench.analysis.labels import model_title
from mergebench.report.material import Material


@dataclass(frozen=True)
class Gap:
    """Files of one kind that are missing: what they are, which (below the results), and the command that makes them."""

    what: str
    targets: list[str]
    command: str


def gaps(material: Material) -> list[Gap]:
    """What the campaign should have and has not, in its order: models, searches, losses and scores of each model."""
    scope = material.scope
    there = {name: {"/".join(path.parts[-4:]) for path in material.paths(name)} for name in ("scores", "models", "searches", "losses")}
    found = []
    for base in scope.bases:
        for model in material.models:
            manifest = f"models/{base}/{model}/manifest.json"
            if manifest not in there["models"]:
                found.append(_gap(material, f"model {model_title(model)} of {base}", [manifest]))
        for method in scope.tuned:
            search = f"tuning/{base}/{method}/search.parquet"
            if search not in there["searches"]:
                found.append(_gap(material, f"search of {model_title(method)} on {base}", [search]))
        for model in material.models:
            wanted = [f"scores/{base}/{model}/{each.name}.json" for each in scope.benchmarks if scope.expects(model, each)]
            absent = [target for target in wanted if target not in there["scores"]]
            if absent:
                count = f"all {len(absent)}" if len(absent) == len(wanted) else f"{len(absent)} of {len(wanted)}"
                found.append(_gap(material, f"scores of {model_title(model)} on {base} ({count})", absent))
    return found


def _gap(material: Material, what: str, targets: list[str]) -> Gap:
    return Gap(what, targets, material.make(*targets))
