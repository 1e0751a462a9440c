"""How fast programs run in the sandbox: reference solutions of HumanEval+ and MBPP+, several different samples of each.

    MERGEBENCH_REAL_DATA=/data/benchmarks python benchmarks/programs.py --samples 10

The samples of a problem differ in a comment, so that each runs. Prints a Markdown table with programs per second of wall time,
the CPU time of one program, and what the campaign's 542 problems with 10 samples would take, as docs/evaluation-code.md has it.
"""

import sys
from pathlib import Path

# A script's own folder is searched first, and statistics.py there would stand before Python's module of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import os
import resource
import tempfile
import time

from mergebench.artifacts import Job, execute
from mergebench.data import prepare
from mergebench.evaluation.code import programs, sandbox, tiers

SOLUTIONS = {"humanevalplus": "canonical_solution", "mbppplus": "code"}
# Half a minute for one problem, which would drown the others.
SLOW = ("Mbpp/255",)
CAMPAIGN = 542 * 10


def main() -> None:
    """Measure every tier that works here."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--samples", type=int, default=10, help="programs per problem (default: %(default)s)")
    options.add_argument("--every", type=int, default=10, help="take every n-th problem (default: %(default)s)")
    options.add_argument("--trivial", type=int, default=0, help="so many programs of one line instead: what the sandbox itself costs")
    options.add_argument("--workers", type=int, default=2, help="programs at the same time (default: %(default)s)")
    chosen = options.parse_args()
    if chosen.trivial:
        found = [sandbox.Task(f"def f(x):\n    return x + {number}", f"assert f(1) == {number + 1}") for number in range(chosen.trivial)]
    else:
        found = tasks(Path(os.environ["MERGEBENCH_REAL_DATA"]), chosen.every, chosen.samples)
    print(f"{len(found)} programs, {chosen.workers} workers, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| tier | programs per second | CPU seconds per program | 542 problems, 10 samples (min) |")
    print("|---|---|---|---|")
    for means in tiers.candidates():
        if means.strong:
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            verdicts, _ = sandbox.run(found, timeout_seconds=300, workers=chosen.workers, tier=means.tier)
            seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
            assert all(verdict.passed for verdict in verdicts)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            rate = len(found) / seconds
            # Bubblewrap's own process does not account for those inside.
            shown = "—" if means.tier == tiers.BUBBLEWRAP else f"{cpu / len(found):.3f}"
            print(f"| `{means.tier}` | {rate:.1f} | {shown} | {CAMPAIGN / rate / 60:.1f} |", flush=True)


def tasks(root: Path, every: int, samples: int) -> list[sandbox.Task]:
    """Programs of every n-th problem."""
    found = []
    for name, column in SOLUTIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            outputs = {"manifest": Path(folder) / "data/manifest.json", "rows": Path(folder) / "data/rows.jsonl"}
            spec = {"dataset": name, "source": "local", "root": str(root), "limit": None, "seed": 0}
            execute(prepare, Job("prepare", spec, {}, outputs, Path(folder) / "state"))
            rows = [json.loads(line) for line in outputs["rows"].read_text(encoding="utf-8").splitlines()]
        for row in [row for row in rows if row["id"] not in SLOW][::every]:
            answers = [f"{row[column]}\n# sample {number}\n" for number in range(samples)]
            found += [sandbox.Task(**program) for program in programs.prepare(name, row, answers)]
    return found


if __name__ == "__main__":
    main()
