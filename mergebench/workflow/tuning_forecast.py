"""`mergebench plan tune`: what tuning one base costs, method by method, and what it would cost in other ways.

Counts follow from the grids, everything else is arithmetic from the catalogue and the assumptions that are printed with it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mergebench import catalogue
from mergebench.config import Configuration
from mergebench.workflow import evaluation_forecast
from mergebench.workflow.estimates import CPU_START, GPU_START, INSTALL_SECONDS, OUTCOME_BYTES, STREAM_RATE, judging_seconds
from mergebench.workflow.forecast_text import duration
from mergebench.workflow.plan import Plan
from mergebench.workflow.questions import Questions
from mergebench.workflow.resources import Escalation, Resources, Site
from mergebench.workflow.searches import Search, fewest, searches
from mergebench.workflow.storage import gigabytes

COLUMNS = ("candidates", "weight_builds", "evaluations", "questions", "engine_starts", "read_bytes", "written_bytes", "hours")


def record(configuration: Configuration, site: Site, base: str | None = None) -> dict[str, Any]:
    """All numbers of the forecast of tuning one base.

    Args:
        configuration: with the preset to forecast.
        site: decides how much memory a job has for directions; what does not fit is written to disk.
        base: its name (default: the preset's nearest to 8 billion parameters).

    Raises:
        MergebenchError: the preset has no such base.
    """
    plan = Plan(configuration)
    base = evaluation_forecast.chosen_base(plan, base)
    resources, found = Resources(plan, site), searches(plan)
    asked = {s: evaluation_forecast.asked_of(plan, base, s)[0] for names in plan.surrogates.values() for s in names}
    costs = _Costs(resources, base, asked)
    methods = {s.method: costs.live(s) for s in found}
    starts = {"one job per method": len(found), "one job per base": min(1, len(found))}
    ways = {name: costs.with_starts(methods.values(), count) for name, count in starts.items()}
    ways["a checkpoint and an engine start per candidate"] = _sum([costs.from_disk(s) for s in found])
    way = "one job per base" if plan.preset.tuning.fused else "one job per method"
    every = [_Costs(resources, each, asked) for each in plan.bases]
    return {
        "preset": plan.name,
        "base": base,
        "parameters": int(catalogue.bases()[base]["parameters"]),
        "backend": plan.tuning_backend,
        "search": plan.preset.tuning.search,
        "seeds": plan.preset.tuning.seeds,
        "budget": plan.preset.tuning.budget and plan.preset.tuning.budget.model_dump(exclude_none=True),
        "methods": methods,
        "total": ways[way],
        "fewest_evaluations": sum(fewest(plan, s) for s in found),
        "ways": ways,
        "bases": len(plan.bases),
        "bases_hours": sum(each.with_starts(map(each.live, found), starts[way])["hours"] for each in every),
        "surrogates": {s: questions.rows for s, questions in asked.items()},
        "gpu": not costs.tiny,
        "assumptions": f"{evaluation_forecast.assumptions(plan, base, plan.tuning_backend)}; weights read and added up at "
        f"{STREAM_RATE / 1e9:.1f} GB/s, installed in {INSTALL_SECONDS:g} s per billion parameters; no two candidates with the same weights",
        "warnings": plan.warnings,
    }


class _Costs:
    """What the parts of a search cost on one base."""

    def __init__(self, resources: Resources, base: str, asked: Mapping[str, Questions]) -> None:
        self.resources, self.base, self.asked = resources, base, asked
        self.estimates = resources.estimates
        plan = self.estimates.plan
        self.tiny = self.estimates.tiny(base)
        self.weights = self.estimates.weights(base)
        self.start = CPU_START if self.tiny else GPU_START
        self.items = sum(questions.rows for questions in asked.values())
        parameters = self.estimates.parameters(base)
        self.asking = sum(evaluation_forecast.seconds_of(plan, questions, parameters, plan.tuning_backend) for questions in asked.values())
        self.asking += judging_seconds(plan, [questions for s, questions in asked.items() if plan.deferred(s) == "safety"])

    def live(self, found: Search) -> dict[str, float]:
        """A search on one live engine, without its start."""
        request = self.resources.request(self.estimates.of("tune", base=self.base, method=found.method), Escalation())
        spilled = max(0.0, self.estimates.held(self.base) - request.mem_mb * 2**20 / 2)
        seconds = found.builds * (self.estimates.merging(self.base, found.method) + spilled / STREAM_RATE)
        seconds += found.evaluations * self.estimates.installing(self.base) + found.passes * self.asking
        inputs = self.estimates.read_by_merge(self.base, found.method)
        return {
            "candidates": found.candidates,
            "weight_builds": found.builds,
            "evaluations": found.evaluations,
            "questions": found.passes * self.items,
            "engine_starts": 0,
            # The base is read again for every candidate; the page cache serves it after the first time.
            "read_bytes": found.builds * inputs + found.evaluations * (self.weights + spilled),
            "written_bytes": found.builds * spilled + found.passes * self.items * OUTCOME_BYTES,
            "hours": seconds / 3600,
        }

    def with_starts(self, methods: Iterable[Mapping[str, float]], starts: int) -> dict[str, float]:
        """All searches of a base in so many processes."""
        total = _sum(methods)
        opening = {"engine_starts": starts, "read_bytes": starts * self.weights, "hours": starts * self.start / 3600}
        return {name: value + opening.get(name, 0) for name, value in total.items()}

    def from_disk(self, found: Search) -> dict[str, float]:
        """The same search with every candidate merged to disk and loaded into a new engine."""
        live, count = self.live(found), found.evaluations
        seconds = count * (self.estimates.merging(self.base, found.method) + self.start) + found.passes * self.asking
        return {
            **live,
            "weight_builds": count,
            "engine_starts": count,
            "read_bytes": count * (self.estimates.read_by_merge(self.base, found.method) + self.weights),
            "written_bytes": count * self.weights + found.passes * self.items * OUTCOME_BYTES,
            "hours": seconds / 3600,
        }


def _sum(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    listed = list(rows)
    return {name: sum(row[name] for row in listed) for name in COLUMNS}


def render(found: Mapping[str, Any]) -> str:
    """The forecast as text: a line per method, then the ways to do it, totals, assumptions and warnings."""
    device = "GPU" if found["gpu"] else "core"
    spent = f"{device} time"
    head = f"{'method':<30}{'candidates':>11}{'weight builds':>15}{'scored':>8}{'questions':>12}"
    lines = [
        f"Tuning {found['base']} (preset {found['preset']}, backend {found['backend']}, search {found['search']})",
        "",
        f"{head}{'read':>10}{'written':>10}{spent:>12}",
    ]
    for method, row in [*found["methods"].items(), ("total, with engine starts", found["total"])]:
        lines.append(
            f"{method:<30}{row['candidates']:>11,.0f}{row['weight_builds']:>15,.0f}{row['evaluations']:>8,.0f}{row['questions']:>12,.0f}"
            f"{gigabytes(row['read_bytes']):>10}{gigabytes(row['written_bytes']):>10}{_time(row['hours']):>12}"
        )
    lines += ["", f"{'way':<48}{'engine starts':>14}{'weight builds':>15}{'read':>10}{'written':>10}{spent:>12}"]
    for way, row in found["ways"].items():
        lines.append(
            f"{way:<48}{row['engine_starts']:>14,.0f}{row['weight_builds']:>15,.0f}{gigabytes(row['read_bytes']):>10}"
            f"{gigabytes(row['written_bytes']):>10}{_time(row['hours']):>12}"
        )
    items = ", ".join(f"{name} {rows:,}" for name, rows in found["surrogates"].items())
    lines += [
        "",
        f"surrogates: {items} items",
        f"all bases of the preset ({found['bases']}): {duration(found['bases_hours'])} on one {device}",
    ]
    if found["search"] != "grid":
        least = f"{found['fewest_evaluations']:,.1f} of {found['total']['evaluations']:,.0f}"
        lines.append(f"{found['search']} scores at least {least} candidates; the times are those of all")
    if found["budget"]:
        limits = ", ".join(f"{value:g} {name.replace('_', ' ')}" for name, value in found["budget"].items())
        lines.append(f"budget of each method: at most {limits}; the times are those without it")
    if found["seeds"] > 1:
        lines.append(f"methods that draw random numbers: {found['seeds']} seeds")
    lines.append(f"assumed: {found['assumptions']}")
    return "\n".join([*lines, *(f"warning: {warning}" for warning in found["warnings"])])


def _time(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
