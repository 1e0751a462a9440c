"""Time and memory of the analysis of a whole campaign of the paper, on item files that are made up.

    python benchmarks/analysis.py

Eight bases with sixteen models each (base, specialists, multitask, nine methods) are scored on all benchmarks with as many rows as the
real ones have: 17.5 million rows. The files are made first, in a temporary folder, which takes longer than the measurement; the
analysis then runs as a process of its own and writes all tables and figures. Answers are random words; outcomes are random with
the same difficulty of an item for all models. Not a test: nothing here fails on a number.
"""

from __future__ import annotations

import sys
from pathlib import Path

# A script's own folder is searched first, and statistics.py there would stand before Python's module of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

REPOSITORY = Path(__file__).resolve().parent.parent

LANGUAGES = ("de", "es", "fr", "ru")
WORDS = 60


def main() -> None:
    """Make the files, analyse them, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the rows of each benchmark")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    options = parser.parse_args()

    from mergebench import config
    from mergebench.workflow.plan import Plan

    plan = Plan(config.load(REPOSITORY / "config.yaml", preset="paper"))
    spec = plan.spec("analyse")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        root = Path(name)
        rows, files = make(root, spec, options.share)
        size = sum(path.stat().st_size for path in root.glob("scores/*/*/*.parquet"))
        (root / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, __file__, str(root)], env={**os.environ, "ANALYSE": "1"})
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
    if status:
        sys.exit("the analysis failed")
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {os.environ.get('OMP_NUM_THREADS', 'all')} threads")
    print(f"{rows:,} rows in {files:,} item files, {size / 2**30:.2f} GiB")
    print(f"wall {wall:.0f} s, CPU {used.ru_utime + used.ru_stime:.0f} s, peak memory {used.ru_maxrss / 2**20:.2f} GiB")


def analyse(root: Path) -> None:
    """What the rule `analyse` runs."""
    from mergebench.analysis import run
    from mergebench.analysis.outputs import FILENAMES
    from mergebench.artifacts import Job, execute

    inputs = {"scores": sorted(root.glob("scores/*/*/*.json")), "items": sorted(root.glob("scores/*/*/*.items.parquet"))}
    outputs = {name: root / "out" / name for name in FILENAMES}
    spec = json.loads((root / "spec.json").read_text(encoding="utf-8"))
    execute(run, Job("analyse", spec, inputs, outputs, root / "state"))


def make(root: Path, spec: dict[str, Any], share: float) -> tuple[int, int]:
    """Score records and item files of every model; returns the numbers of rows and files."""
    from mergebench import catalogue

    models = ["base", *(f"specialist_{d}" for d in spec["domains"]), "multitask", *(f"merged_{m}" for m in spec["methods"])]
    rows = files = 0
    for number, (benchmark, entry) in enumerate(spec["benchmarks"].items()):
        generator = np.random.default_rng(number)
        shared = Shared(benchmark, entry["aggregate"], max(40, int(share * catalogue.benchmarks()[benchmark]["rows"])), generator)
        for base in spec["bases"]:
            for model in models:
                if entry["role"] == "forgetting" and model.startswith("specialist_"):
                    continue
                skill = 0.3 * generator.random() + 0.5 * (model == f"specialist_{entry['domain']}")
                folder = root / "scores" / base / model
                folder.mkdir(parents=True, exist_ok=True)
                value, table = shared.of(skill)
                pq.write_table(table, folder / f"{benchmark}.items.parquet", compression="zstd")
                record = {"base": base, "model": model, "benchmark": benchmark, "domain": entry["domain"], "role": entry["role"]}
                record |= {"metric": "made up", "value": value, "standard_error": 0.01, "n": len(table), "higher_is_better": True}
                (folder / f"{benchmark}.json").write_text(json.dumps(record), encoding="utf-8")
                rows, files = rows + len(table), files + 1
        print(f"{benchmark}: {rows:,} rows made", file=sys.stderr, flush=True)
    return rows, files


class Shared:
    """The items of a benchmark, which all models answer, and their difficulty."""

    def __init__(self, benchmark: str, aggregate: str, rows: int, generator: np.random.Generator) -> None:
        self.aggregate, self.generator = aggregate, generator
        self.difficulty = 0.6 * generator.random(rows)
        parallel = aggregate == "mean_over_groups"
        self.groups = [LANGUAGES[row % len(LANGUAGES)] if parallel else "" for row in range(rows)]
        self.items = [f"{self.groups[row]}/{row // len(LANGUAGES):06d}" if parallel else f"{benchmark}/{row:06d}" for row in range(rows)]
        words = generator.integers(0, 20_000, (rows, WORDS))
        self.responses = pa.array([" ".join(map(str, row)) for row in words])

    def of(self, skill: float) -> tuple[float, pa.Table]:
        """One model's score and item file; the likelier an item is right, the higher the skill."""
        chance = np.clip(skill + 0.5 - self.difficulty, 0.02, 0.98)
        outcome = (self.generator.random(len(chance)) < chance).astype(float)
        if self.aggregate == "best_f1":
            value, outcome, extra = self._best_f1(outcome)
        elif self.aggregate == "corpus_bleu":
            value, outcome, extra = self._bleu(chance)
        elif self.aggregate == "mean_over_groups":
            groups = np.array(self.groups)
            value, extra = float(np.mean([outcome[groups == language].mean() for language in LANGUAGES])), ['{"acc": 1.0}'] * len(outcome)
        else:
            value, extra = float(outcome.mean()), ['{"acc": 1.0}'] * len(outcome)
        columns = {"item": self.items, "outcome": outcome, "group": self.groups, "response": self.responses}
        return value, pa.table(columns | {"extracted": pa.nulls(len(outcome), pa.string()), "extra": extra})

    def _best_f1(self, right: np.ndarray) -> tuple[float, np.ndarray, list[str]]:
        from mergebench.evaluation.aggregate import Item, best_f1

        answerable = self.generator.random(len(right)) < 0.5
        doubt = np.clip(self.generator.normal(0.6 - 0.3 * answerable, 0.2), 0, 1)
        items = [
            Item(name, "", float(f1 * known), "x", {"answerable": bool(known), "no_answer_probability": float(p)})
            for name, f1, known, p in zip(self.items, right, answerable, doubt, strict=True)
        ]
        value = best_f1(items).value
        return value, np.array([item.outcome for item in items]), [json.dumps(item.extra) for item in items]

    def _bleu(self, chance: np.ndarray) -> tuple[float, np.ndarray, list[str]]:
        from mergebench.evaluation import bleu

        totals = 24 - np.arange(4)
        matches = self.generator.binomial(totals, chance[:, None] ** np.arange(1, 5))
        counts = np.concatenate([np.full((len(chance), 2), 24), matches, np.tile(totals, (len(chance), 1))], axis=1)
        return bleu.score(counts.sum(axis=0), "exp"), chance, [json.dumps({"counts": row}) for row in counts.tolist()]


if __name__ == "__main__":
    if os.environ.get("ANALYSE"):
        analyse(Path(sys.argv[1]))
    else:
        main()
