"""A synthetic campaign on disk: score, cost and search records with known values."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from mergebench import config
from mergebench.analysis.costs import method_costs, read_costs, read_searches
from mergebench.analysis.efficiency import BEFORE_GRPO, MATHEMATICS, read_jobs
from mergebench.analysis.fidelity import read_surrogates
from mergebench.analysis.items import item_files
from mergebench.analysis.losses import read_losses
from mergebench.analysis.prepared import read_prepared
from mergebench.analysis.scope import Scope
from mergebench.analysis.scores import read_scores, select
from mergebench.analysis.tables import Evidence
from mergebench.analysis.winners import read_winners
from mergebench.artifacts import Job
from mergebench.workflow.plan import Plan
from mergebench.workflow.settings import settings

DOMAINS = ["instruction", "math", "multilingual", "coding", "safety"]
IN_DOMAIN = {
    "ifeval": "instruction",
    "gsm8k": "math",
    "math": "math",
    "m_mmlu": "multilingual",
    "m_arc": "multilingual",
    "m_hellaswag": "multilingual",
    "humanevalplus": "coding",
    "mbppplus": "coding",
    "wildguardtest": "safety",
    "harmbench": "safety",
    "do_anything_now": "safety",
    "xstest": "safety",
}
FORGETTING = ["mmlu", "triviaqa", "squadv2", "coqa", "pubmedqa", "wmt14"]
METHODS = [
    "model_soup",
    "task_arithmetic",
    "fisher",
    "regmean",
    "ties",
    "dare",
    "consensus_ta",
    "dataless_localize_and_stitch",
    "localize_and_stitch",
]
DATA = {"model_soup": "nothing", "fisher": "training", "regmean": "training", "localize_and_stitch": "training"}
DATA |= {method: "validation" for method in METHODS if method not in DATA}
STATISTICS = {"fisher": ["fisher"], "regmean": ["gram"], "localize_and_stitch": ["mask"]}

SURROGATES = {"instruction": "ifeval_like", "math": "mmlu_stem", "multilingual": "lambada", "coding": "conala", "safety": "wildjailbreak"}

ValueOf = Callable[[str, str, str], float]
"""(base, model, benchmark) -> score in [0, 1]"""


def plain_value(base: str, model: str, benchmark: str) -> float:
    """Base 0.2 and own specialist 0.8 on every in-domain benchmark, everything else between; nothing forgotten."""
    if benchmark in FORGETTING:
        return 0.5
    if model == f"specialist_{IN_DOMAIN[benchmark]}":
        return 0.8
    return 0.2 if model == "base" or model.startswith("specialist") else 0.6


@cache
def papers_settings() -> dict[str, dict[str, Any]]:
    """The settings of the preset `paper`, as the plan hands them to the analysis."""
    return settings(Plan(config.load(Path(__file__).parents[3] / "config.yaml", preset="paper")))


@dataclass
class Campaign:
    """Builds and reads the records of a campaign below `root`; tests alter it before reading."""

    root: Path
    bases: list[str] = field(default_factory=lambda: ["tiny-llama-strong", "tiny-gemma-2-strong"])
    methods: list[str] = field(default_factory=lambda: ["model_soup", "ties", "fisher"])
    standard_error: float | None = 0.02
    multitask: bool = True
    warnings: list[str] = field(default_factory=list)
    lineage: dict[str, dict[str, Any]] = field(default_factory=dict)
    prices: dict[str, Any] | None = field(default_factory=lambda: {"gpu_hour": 2.0, "cpu_hour": 0.04, "kwh": None, "currency": "USD"})
    controls: list[str] = field(default_factory=list)
    seeds: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def spec(self) -> dict[str, Any]:
        benchmarks = {name: {"domain": domain, "role": "in_domain", "title": name.upper()} for name, domain in IN_DOMAIN.items()}
        benchmarks |= {name: {"domain": "forgetting", "role": "forgetting", "title": name.upper()} for name in FORGETTING}
        return {
            "bases": self.bases,
            "methods": self.methods,
            "domains": DOMAINS,
            "benchmarks": benchmarks,
            "tuned": [method for method in self.methods if method != "model_soup"],
            "multitask": self.multitask,
            "statistics": {method: STATISTICS[method] for method in self.methods if method in STATISTICS},
            "surrogates": {domain: [name] for domain, name in SURROGATES.items()},
            "warnings": self.warnings,
            "lineage": self.lineage,
            "data": {method: DATA[method] for method in self.methods if method in DATA},
            "prices": self.prices,
            "settings": self.settings,
            "controls": self.controls,
            "seeds": self.seeds,
        }

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Those of the paper's campaign, of the methods that both have."""
        paper = papers_settings()
        return {**paper, "methods": {name: entry for name, entry in paper["methods"].items() if name in self.methods}}

    @property
    def scope(self) -> Scope:
        return Scope.from_spec(self.spec)

    def write(self, value_of: ValueOf = plain_value) -> "Campaign":
        for base in self.bases:
            for model in self.scope.scored:
                for benchmark in IN_DOMAIN if model.startswith("specialist") else (*IN_DOMAIN, *FORGETTING):
                    self.write_score(base, model, benchmark, value_of(base, model, benchmark))
            for specialist in self.scope.specialists:
                for domain, surrogate in SURROGATES.items():
                    self.write_score(base, specialist, surrogate, 0.7 if specialist.endswith(domain) else 0.1)
            for position, method in enumerate(self.methods):
                self.write_method_costs(base, method, position)
                self.write_merge(base, method, f"{method} {position - 1}")
                if method != "model_soup":
                    self.write_search(base, method, [(n, s, None, 0.1 * n) for n in range(position) for s in SURROGATES.values()])
        for base in self.bases:
            self.write_losses(base)
        for name in (*self.settings["training"], *self.settings["benchmarks"]):
            self.write_prepared(name)
        return self

    def write_prepared(self, dataset: str, **changes: Any) -> Path:
        """The manifest of prepared data: 100 training and 8 calibration rows, or 50 of a benchmark."""
        rows = {"train": 100, "calibration": 8} if dataset.startswith("train_") else {"rows": 50, "examples": 0}
        manifest = {"files": {}, "source": "tiny", "source_rows": sum(rows.values()), "rows": rows, "notes": []}
        return _write(self.root / "data" / dataset / "manifest.json", manifest | changes)

    def write_losses(self, base: str) -> None:
        """Falling losses of the trained models; the mathematics specialist of the first base comes from GRPO."""
        reinforced = base == self.bases[0]
        for number, model in enumerate((*self.scope.specialists, *(["multitask"] if self.multitask else []))):
            name = BEFORE_GRPO if reinforced and model == MATHEMATICS else model
            path = self.root / "models" / base / name / "losses.jsonl"
            path.parent.mkdir(parents=True)
            path.write_text("".join(json.dumps({"step": 10 * k, "loss": (number + 2) / k}) + "\n" for k in range(1, 6)))

    def write_score(self, base: str, model: str, benchmark: str, value: float, **changes: Any) -> Path:
        record = {
            "base": base,
            "model": model,
            "benchmark": benchmark,
            "domain": (IN_DOMAIN | {name: domain for domain, name in SURROGATES.items()}).get(benchmark, "forgetting"),
            "role": "in_domain" if benchmark in IN_DOMAIN else "forgetting" if benchmark in FORGETTING else "surrogate",
            "metric": "acc",
            "value": value,
            "standard_error": self.standard_error,
            "n": 50,
            "higher_is_better": True,
        }
        return _write(self.score_path(base, model, benchmark), record | changes)

    def write_items(self, base: str, model: str, benchmark: str, outcomes: Any) -> Path:
        """Items with these outcomes, and the record of their mean."""
        self.write_score(base, model, benchmark, float(np.nanmean(outcomes)))
        items = [f"{benchmark}/{number:04d}" for number in range(len(outcomes))]
        path = self.score_path(base, model, benchmark).with_suffix(".items.parquet")
        return write_items(path, items, outcomes)

    def write_method_costs(self, base: str, method: str, position: int) -> None:
        for kind in STATISTICS.get(method, []):
            for domain in DOMAINS:
                self.write_cost(f"statistics/{base}/{domain}/{kind}", {"algorithm": 1.0, "load": 9.0}, domain=domain)
        self.write_cost(f"merge/{base}/{method}", {"algorithm": 0.5}, method=method, peak=300 + position)
        if method == "model_soup":
            return
        self.write_cost(f"tune/{base}/{method}", {"algorithm": 2.0, "validation": 7.0 * position}, method=method)

    def write_search(self, base: str, method: str, rows: list[tuple[int, str, int | None, float]]) -> None:
        """Candidates with their scores on surrogates, or on a block of their items; weights are named after method and candidate."""
        search = self.root / "tuning" / base / method / "search.parquet"
        search.parent.mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame(rows, columns=["candidate", "surrogate", "block", "value"]).astype({"block": "Int64", "value": float})
        frame.assign(stage="grid", weights=[f"{method} {candidate}" for candidate in frame["candidate"]]).to_parquet(search)
        count = int(frame["candidate"].nunique())
        best = {"parameters": {"scale": 0.4}, "objective": 0.75, "candidates": count, "evaluations": float(count)}
        search.with_name("best.yaml").write_text(yaml.safe_dump(best))

    def write_merge(self, base: str, method: str, weights: str) -> Path:
        return _write(self.root / "models" / base / f"merged_{method}" / "manifest.json", {"files": {}, "realised_digest": weights})

    def write_cost(self, name: str, timing: dict[str, float], peak: int = 200, **identity: Any) -> Path:
        stage, base = name.split("/")[:2]
        record = {
            "stage": stage,
            "base": base,
            "wall_seconds": 20.0,
            "cpu_seconds": 20.0,
            "peak_rss_bytes": peak * 2**20,
            "gpu_seconds": 0.0,
            "timing": timing,
        }
        return _write(self.root / "costs" / f"{name}.json", record | identity)

    def score_path(self, base: str, model: str, benchmark: str) -> Path:
        return self.root / "scores" / base / model / f"{benchmark}.json"

    @property
    def inputs(self) -> dict[str, list[Path]]:
        return {
            "scores": sorted(self.root.glob("scores/**/*.json")),
            "items": sorted(self.root.glob("scores/**/*.items.parquet")),
            "costs": sorted(self.root.glob("costs/**/*.json")),
            "searches": sorted(self.root.glob("tuning/**/search.parquet")),
            "winners": sorted(self.root.glob("tuning/**/best.yaml")),
            "losses": sorted(self.root.glob("models/*/*/losses.jsonl")),
            "merges": sorted(self.root.glob("models/*/merged_*/manifest.json")),
            "prepared": sorted(self.root.glob("data/*/manifest.json")),
            "interference": sorted(self.root.glob("vectors/*/interference.parquet")),
        }

    def job(self, outputs: list[str], folder: str = "tables") -> Job:
        return Job(
            stage="analyse",
            spec=self.spec,
            inputs=self.inputs,
            outputs={name: self.root / folder / name for name in outputs},
            state=self.root / "state",
        )

    def evidence(self) -> Evidence:
        inputs = self.inputs
        charges = read_costs(inputs["costs"])
        costs = method_costs(charges, read_searches(inputs["searches"]), self.scope)
        jobs, losses = read_jobs(inputs["costs"], self.scope), read_losses(inputs["losses"])
        everything = read_scores(inputs["scores"])
        surrogates = read_surrogates(everything, inputs["searches"], inputs["merges"], self.scope)
        winners = read_winners(inputs["winners"], self.scope)
        scores, items = select(everything, self.scope), item_files(inputs["items"])
        prepared = read_prepared(inputs["prepared"])
        return Evidence(self.scope, scores, costs, jobs, losses, surrogates, winners, items, charges, prepared, inputs["interference"])


def write_items(
    path: Path, items: Any, outcomes: Any, groups: Any = None, extra: Any = None, responses: Any = None, clusters: Any = None
) -> Path:
    """An item file as evaluation writes it; without clusters, as it once did."""
    blank = [""] * len(items)
    columns = {"item": items, "outcome": np.asarray(outcomes, dtype=float), "group": blank if groups is None else groups}
    columns |= {"response": blank if responses is None else responses, "extracted": pd.Series(blank, dtype=object)}
    if clusters is not None:
        columns["cluster"] = list(clusters)
    columns["extra"] = ["{}"] * len(items) if extra is None else [json.dumps(each) for each in extra]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_parquet(path, index=False, compression="zstd")
    return path


def cut_off(figure: Any) -> bool:
    """Whether something of a figure lies outside its picture."""
    figure.canvas.draw()
    tight, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return bool(min(tight.x0, tight.y0, width - tight.x1, height - tight.y1) < 0)


def _write(path: Path, record: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record), encoding="utf-8")
    return path
