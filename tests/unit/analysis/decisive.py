"""A campaign on one base whose answers are known: what methods score on every item, and what their jobs have used."""

from pathlib import Path

import numpy as np

from tests.unit.analysis.synthetic import DOMAINS, FORGETTING, IN_DOMAIN, STATISTICS, Campaign

BASE = "tiny-llama-strong"
ITEMS = 40
RIGHT = {"base": 0.2, "model_soup": 0.4, "task_arithmetic": 0.7, "ties": 0.7, "fisher": 0.3, "dare": 0.4}
"""Share of right answers; specialists have 0.8. One that has more is right wherever one with less is."""
KEPT = {"model_soup": 0.5, "task_arithmetic": 0.3, "ties": 0.5, "fisher": 0.4, "dare": 0.5}
"""The same on the forgetting benchmarks; the base has 0.5."""
HOURS = {"model_soup": 1.0, "task_arithmetic": 2.0, "ties": 4.0, "fisher": 3.0, "dare": 0.5}
"""GPU-hours of all jobs of a method together."""


def decisive(root: Path, items: bool = True) -> Campaign:
    """The campaign; without items nothing can be tested."""
    campaign = Campaign(root, bases=[BASE], methods=list(HOURS), multitask=False, standard_error=None)
    for model in campaign.scope.models:
        for benchmark in IN_DOMAIN if model.startswith("specialist") else (*IN_DOMAIN, *FORGETTING):
            share = _share(model, benchmark)
            if items:
                campaign.write_items(BASE, model, benchmark, (np.arange(ITEMS) < round(ITEMS * share)).astype(float))
            else:
                campaign.write_score(BASE, model, benchmark, share)
    for method, hours in HOURS.items():
        jobs = [f"merge/{BASE}/{method}", *([f"tune/{BASE}/{method}"] if method != "model_soup" else [])]
        jobs += [f"statistics/{BASE}/{domain}/{kind}" for kind in STATISTICS.get(method, []) for domain in DOMAINS]
        for name in jobs:
            domain = {"domain": name.split("/")[2]} if name.startswith("statistics") else {"method": method}
            used = {"cpu_seconds": 0.0, "gpu_seconds": 3600 * hours / len(jobs), "gpu_peak_bytes": int(hours * 8 * 2**30)}
            campaign.write_cost(name, {"algorithm": 1.0}, **domain, **used)
    return campaign


def _share(model: str, benchmark: str) -> float:
    method = model.removeprefix("merged_")
    if benchmark in FORGETTING:
        return KEPT.get(method, 0.5)
    if model == f"specialist_{IN_DOMAIN[benchmark]}":
        return 0.8
    return RIGHT.get(method, 0.2)
