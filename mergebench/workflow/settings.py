"""What a campaign was set up with, for the tables of settings: methods and their grids, training sets, benchmarks.

No torch here: it is part of the spec of the analysis, which every job could ask for.
"""

from __future__ import annotations

from typing import Any

from mergebench import catalogue
from mergebench.merging.declarations import declared
from mergebench.merging.descriptions import described
from mergebench.workflow.plan import GRPO_DATA, Plan
from mergebench.workflow.searches import search


def settings(plan: Plan) -> dict[str, Any]:
    """The settings of a plan by kind and name, in the order of the tables; see the functions below for their keys."""
    domains = {name: entry["title"] for name, entry in catalogue.domains().items()}
    training = [*(f"train_{domain}" for domain in plan.domains), *([GRPO_DATA] if plan.grpo_bases else [])]
    position = {domain: number for number, domain in enumerate(plan.domains)}
    entries = catalogue.datasets()
    training.sort(key=lambda name: position[entries[name]["domain"]])
    measured = dict.fromkeys(plan.in_domain, "in_domain") | dict.fromkeys(plan.preset.evaluation.forgetting, "forgetting")
    measured |= {name: "surrogate" for names in plan.surrogates.values() for name in names}
    return {
        "methods": {method: _method(plan, method) for method in plan.methods},
        "training": {name: _training(plan, name, domains) for name in training},
        "benchmarks": {name: _benchmark(plan, name, role, domains) for name, role in measured.items()},
    }


def _method(plan: Plan, method: str) -> dict[str, Any]:
    """What it is (`title`, `paper`, `arxiv`, `summary`), needs (`data`, `statistics`, `spectra`, `calibration`, `random`) and searches."""
    about, needs, chosen = described()[method], declared()[method], plan.preset.merging.methods[method]
    counted = search(plan, method)
    return {
        "title": about.title,
        "paper": about.paper,
        "arxiv": about.arxiv,
        "summary": about.summary,
        "data": about.data,
        "statistics": list(needs.statistics),
        "spectra": needs.spectra,
        "calibration": needs.calibration,
        "random": needs.random,
        "grid": {name: list(values) for name, values in chosen.grid.items()},
        "per_domain": [name for name in chosen.grid if name in needs.per_domain],
        "candidates": counted.candidates,
        "seeds": counted.seeds,
    }


def _training(plan: Plan, name: str, domains: dict[str, str]) -> dict[str, Any]:
    """Where a training set belongs, what the paper counts in it, which `training` it is for, and whether this campaign prepares it."""
    entry = catalogue.datasets()[name]
    domain = entry["domain"]
    trained = "GRPO" if name == GRPO_DATA else "SFT" if domain in plan.trained_domains else "none: specialists are imported"
    return {
        "category": domains[domain],
        "title": entry["title"],
        "training": trained,
        "paper": entry["paper"],
        "licence": entry["licence"],
        "prepared": name in plan.training_sets,
    }


def _benchmark(plan: Plan, name: str, role: str, domains: dict[str, str]) -> dict[str, Any]:
    """What a benchmark measures and how it is asked: `rows` of a complete copy, and those that the paper counts."""
    entry, data = catalogue.benchmarks()[name], catalogue.datasets()[name]
    shots = plan.setting(name)["shots"]
    return {
        "category": domains.get(entry["domain"], "Forgetting"),
        "title": entry["title"],
        "role": role,
        "metric": entry["metric"],
        "shots": entry["shots"] if shots is None else shots,
        "paper": data["paper"],
        "rows": entry["rows"],
    }
