"""Size of the report of the paper's campaign, and the time and memory that it takes, on records that are made up.

    python benchmarks/report.py

Eight bases with all models, scores, searches, losses, datasets and cost records of the preset `paper`, with 64 items per score (their
number changes no table's size). Tables and figures are made first; the report is then made by a process of its own. Not a test:
nothing here fails on a number.
"""

from __future__ import annotations

import sys
from pathlib import Path

# A script's own folder is searched first, and statistics.py there would stand before Python's module of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import hashlib
import json
import os
import platform
import subprocess
import tempfile
import time
from typing import Any

import numpy as np
import pandas as pd
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
ITEMS = 64
STEPS = 300


def main() -> None:
    """Make the campaign, report it, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="copy the page to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        root = Path(name) / "paper"
        make(root)
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, __file__, str(root)], env={**os.environ, "REPORT": "1"})
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        if status:
            sys.exit("the report failed")
        page = (root / "report/index.html").read_bytes()
        rows = {path.name: len(path.read_text(encoding="utf-8").splitlines()) - 1 for path in sorted(root.glob("report/*.csv"))}
    if options.keep:
        options.keep.write_bytes(page)
    cpu = used.ru_utime + used.ru_stime
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}: {rows}")
    print(f"page {len(page) / 1e6:.1f} MB; {wall:.0f} s wall, {cpu:.0f} s CPU, {used.ru_maxrss / 2**20:.2f} GiB")


def report(root: Path) -> None:
    """What the stage does."""
    from mergebench.artifacts import Job, execute
    from mergebench.report import run as stage
    from mergebench.report.outputs import FILENAMES, INPUTS

    inputs = {name: sorted(root.glob(pattern)) for name, pattern in INPUTS.items()}
    outputs = {name: root / "report" / name for name in FILENAMES}
    execute(stage, Job("report", json.loads((root / "spec.json").read_text(encoding="utf-8")), inputs, outputs, root / ".state"))


def make(root: Path) -> None:
    """A finished campaign: records, tables and figures."""
    from mergebench import config
    from mergebench.analysis import run as analysis
    from mergebench.analysis.outputs import FILENAMES, TABLES
    from mergebench.artifacts import Job, execute
    from mergebench.merging.candidates import candidates
    from mergebench.workflow.plan import Plan

    plan = Plan(config.load(REPOSITORY / "config.yaml", preset="paper"))
    plan.results = str(root)
    random = np.random.default_rng(0)
    from mergebench import catalogue

    entries = catalogue.benchmarks()
    references = [path for base in plan.bases for path in plan.surrogate_references(base)]
    for path in (*plan.scores, *references):
        score(Path(path), entries, random)
    for base in plan.bases:
        for model in (*plan.general_models, *plan.specialists):
            manifest(Path(plan.model(base, model)) / "manifest.json", model)
        for method in plan.tuned:
            chosen = plan.preset.merging.methods[method]
            found = [each.recipe for each in candidates(method, chosen.grid, plan.domains, chosen.parameters)]
            search(root / "tuning" / base / method, found, plan.surrogates, random)
    for path in map(Path, plan.losses):
        lines = [json.dumps({"step": 10 * step, "loss": 2 / step + 0.01 * random.random()}) for step in range(1, STEPS + 1)]
        write(path, "\n".join(lines) + "\n")
    for name in (*plan.benchmark_datasets, *plan.training_sets):
        facts = {
            "source": "hub",
            "files": {},
            "revisions": {"rows": digest(name)[:40]},
            "rows": {"rows": 1319},
            "sha256": {"rows": digest(name)},
        }
        write(root / "data" / name / "manifest.json", json.dumps(facts))
    for path in map(Path, plan.costs):
        cost(path, path.relative_to(root / "costs").parts)
    tables = {name for table in TABLES for name in table.filenames()}
    places = {name: root / ("tables" if name in tables else "figures") / name for name in FILENAMES}
    globs = {"scores": "scores/*/*/*.json", "items": "scores/*/*/*.items.parquet", "costs": "costs/**/*.json"}
    globs |= {"searches": "tuning/*/*/search.parquet", "winners": "tuning/*/*/best.yaml", "losses": "models/*/*/losses.jsonl"}
    globs |= {"merges": "models/*/merged_*/manifest.json"}
    inputs = {name: sorted(root.glob(pattern)) for name, pattern in globs.items()}
    execute(analysis, Job("analyse", plan.spec("analyse"), inputs, places, root / ".analyse"))
    write(root / "spec.json", json.dumps(plan.spec("report"), sort_keys=True))


def score(path: Path, entries: dict[str, Any], random: np.random.Generator) -> None:
    """A record as evaluation writes it, with its items where they are simple ones."""
    base, model, benchmark = path.parts[-3], path.parts[-2], path.stem
    entry = entries[benchmark]
    outcomes = (random.random(ITEMS) < 0.3 + 0.1 * (len(model) % 6)).astype(float)
    record = {
        **{
            "base": base,
            "model": model,
            "benchmark": benchmark,
            "domain": entry["domain"],
            "role": entry["role"],
            "metric": entry["metric"],
        },
        **{"value": float(outcomes.mean()), "standard_error": 0.05, "n": ITEMS, "higher_is_better": True},
        **{"weights_digest": digest(base + model), "data": {"source": "hub", "revisions": None, "rows_sha256": digest(benchmark)}},
        **{"task_hash": digest(benchmark), "task_version": 1.0, "settings": {"shots": 0, "generation": {"max_gen_toks": 1024}}},
        **{"backend": {"backend": "vllm", "dtype": "bfloat16"}, "versions": {"torch": "2.13.0", "lm_eval": "0.4.13", "vllm": "0.31.0"}},
    }
    write(path, json.dumps(record))
    if entry["role"] == "surrogate" or entry["metric"] in ("bleu", "f1", "best_f1"):
        return
    blank = [""] * ITEMS
    items = {"item": [f"{benchmark}/{number:05d}" for number in range(ITEMS)], "outcome": outcomes, "group": blank, "response": blank}
    frame = pd.DataFrame({**items, "extracted": pd.Series(blank, dtype=object), "extra": ["{}"] * ITEMS})
    frame.to_parquet(path.with_suffix(".items.parquet"), index=False)


def manifest(path: Path, model: str) -> None:
    """What tables and provenance read of a model's manifest."""
    parameters = {"density": 0.2, "scale": 0.4, "weights": 1.0, "rescale": "inv_keep"}
    facts = {
        "weights_digest": digest(str(path)),
        "realised_digest": digest(str(path))[:32],
        "spec": {"seed": 0, "code": digest(model)[:16]},
    }
    write(path, json.dumps({**facts, "files": {}, "recipe": {"domains": ["a"] * 5, "parameters": parameters}, "rows": {"math": 59_000}}))


def search(folder: Path, found: list[dict[str, Any]], surrogates: dict[str, list[str]], random: np.random.Generator) -> None:
    """The log of a grid, its curve and its winner."""
    rows = [
        {
            **{
                "candidate": number,
                "stage": "grid",
                "parameters": json.dumps(parameters, sort_keys=True),
                "seed": 0,
                "surrogate": surrogate,
            },
            **{"domain": domain, "block": None, "value": float(random.random()), "n": 500, "reference": 0.8, "seconds": 40.0},
            **{"normalised": float(random.random()), "weights": digest(f"{folder}{number}")[:32], "alias_of": None},
        }
        for number, parameters in enumerate(found)
        for domain, names in surrogates.items()
        for surrogate in names
    ]
    folder.mkdir(parents=True)
    pd.DataFrame(rows).astype({"block": "Int64", "alias_of": "Int64"}).to_parquet(folder / "search.parquet")
    pd.DataFrame({"objective": np.maximum.accumulate(random.random(len(found)))}).to_parquet(folder / "curve.parquet")
    best = {"parameters": found[len(found) // 2], "objective": 0.9, "candidates": len(found), "evaluations": float(len(found))}
    write(folder / "best.yaml", yaml.safe_dump(best))


def cost(path: Path, place: tuple[str, ...]) -> None:
    """A cost record by its path: stage, base, and method or domain."""
    stage, base, third = place[0], place[1], place[2].removesuffix(".json")
    named = {"domain": third} if stage in ("vectors", "statistics") else {"method": third}
    spent = {"wall_seconds": 900.0, "cpu_seconds": 800.0, "peak_rss_bytes": 40 * 2**30, "gpu_seconds": 900.0}
    write(path, json.dumps({"stage": stage, "base": base, **named, **spent, "timing": {"algorithm": 300.0, "validation": 500.0}}))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if "REPORT" in os.environ:
        report(Path(sys.argv[1]))
    else:
        main()
