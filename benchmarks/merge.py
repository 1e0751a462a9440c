"""Time and memory of merges on synthetic checkpoints, against the floor of reading and writing files, and against mergekit.

    python benchmarks/merge.py --size 0.2B --folder /tmp/bench --mergekit-python /path/to/its/bin/python

Works of one round run one after the other and rounds follow each other, so that all share whatever else the machine does; the table
has the medians. On a machine that does other work, CPU seconds tell more than wall seconds. Peak memory is anonymous memory (RssAnon):
mapped input files are not in it. Not a test: nothing here fails.
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
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks import synthetic

REPOSITORY = Path(__file__).resolve().parent.parent
SCALES = [step / 10 for step in range(1, 11)]
FLOOR, TASK_ARITHMETIC = "cat six inputs, write one output", "Task Arithmetic"
ONE, TEN = "one scale of one direction, in memory", "ten scales of one direction, in memory"

RECIPES: dict[str, dict[str, Any]] = {
    TASK_ARITHMETIC: {"method": "task_arithmetic", "parameters": {"scale": 0.4}},
    "TIES": {"method": "ties", "parameters": {"density": 0.2, "scale": 1.0}},
    "DARE": {"method": "dare", "parameters": {"density": 0.2, "scale": 0.4}},
}
MERGEKIT: dict[str, dict[str, Any]] = {
    TASK_ARITHMETIC: {"merge_method": "task_arithmetic", "parameters": {"weight": 0.4}},
    "TIES": {"merge_method": "ties", "parameters": {"weight": 1.0, "density": 0.2}},
    "DARE": {"merge_method": "dare_linear", "parameters": {"weight": 0.4, "density": 0.2}},
}

# Methods of the paper's data-free grid: as many candidates as Table 6 has.
GRID = ("task_arithmetic", "ties", "dare", "dataless_localize_and_stitch", "consensus_ta")


@dataclass
class Work:
    """One thing to measure.

    Attributes:
        command: What to run.
        output: What it writes, removed before and after each run.
        seconds, processor: Wall and CPU seconds of each run, as the process itself took them if it printed {"seconds": ..., "cpu": ...}.
        peaks: Bytes.
    """

    command: list[str]
    output: Path | None = None
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    def run(self) -> None:
        """Run it once."""
        _clear(self.output)
        start, before = time.perf_counter(), _children()
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT, cwd=REPOSITORY, env=_environment())
            peak = 0
            while process.poll() is None:
                peak = max(peak, _anonymous(process.pid))
                time.sleep(0.01)
            taken = {"seconds": time.perf_counter() - start, "cpu": _children() - before}
            log.seek(0)
            said = log.read()
        _clear(self.output)
        if process.returncode:
            raise SystemExit(f"{' '.join(self.command)} failed:\n{said[-3000:]}")
        last = said.strip().splitlines()[-1:] or [""]
        taken = json.loads(last[0]) if last[0].startswith('{"seconds"') else taken
        self.seconds.append(taken["seconds"])
        self.processor.append(taken["cpu"])
        self.peaks.append(peak)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=synthetic.SIZES, default="0.2B")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "mergebench-benchmark", help="for checkpoints and outputs"
    )
    parser.add_argument("--mergekit-python", type=Path, help="interpreter of an environment with mergekit 0.1.5")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mergekit-rounds", type=int, help="default: as many")
    parser.add_argument("--table", type=Path, help="write the table here as well")
    parser.add_argument("--only", nargs="*", help="measure works whose names hold one of these words")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder.resolve() / options.size
    if options.inside:
        _inside(options.inside, folder, options.threads)
        return
    synthetic.write_family(folder, options.size)
    works = {name: work for name, work in _works(options, folder).items() if not options.only or any(word in name for word in options.only)}
    _warm(folder)
    for name, work in works.items():
        if "mergekit" not in name:  # the first run of an installation compiles the kernels
            work.run()
            for measured in (work.seconds, work.processor, work.peaks):
                measured.clear()
    for number in range(options.rounds):
        for name, work in works.items():
            if "mergekit" in name and number >= (options.mergekit_rounds or options.rounds):
                continue
            work.run()
            print(f"round {number + 1}: {name}: {work.seconds[-1]:.2f} s, {work.peaks[-1] / 1e6:.0f} MB", file=sys.stderr, flush=True)
    table = _table(works, options)
    print(table)
    if options.table:
        options.table.write_text(table + "\n", encoding="utf-8")


def _works(options: argparse.Namespace, folder: Path) -> dict[str, Work]:
    inputs = [str(folder / name / "model.safetensors") for name in ("base", *(f"specialist_{n}" for n in range(5)))]
    size = os.path.getsize(inputs[0])
    out = folder / "out"
    script = f'cat "$@" > /dev/null; head -c {size} /dev/zero > {folder}/zeros'
    works = {FLOOR: Work(["bash", "-c", script, "cat", *inputs], folder / "zeros")}
    for name, recipe in RECIPES.items():
        path = folder / f"{name.replace(' ', '-').lower()}.yml"
        path.write_text(json.dumps(_ours(recipe)), encoding="utf-8")
        command = [sys.executable, "-m", "mergebench", "merge", str(path), str(out), "--quiet", "--threads", str(options.threads)]
        works[f"{name}, engine"] = _engine(options, f"merge:{name}", out)
        works[f"{name}, whole command"] = Work(command, out)
        if options.mergekit_python:
            path = folder / f"mergekit-{path.name}"
            path.write_text(json.dumps(_mergekits(MERGEKIT[name], folder)), encoding="utf-8")
            tool = str(options.mergekit_python.parent / "mergekit-yaml")
            works[f"{name}, mergekit"] = Work([tool, str(path), str(out), "--no-copy-tokenizer", "--quiet"], out)
    works[ONE] = _engine(options, "scales:1", None)
    works[TEN] = _engine(options, "scales:10", None)
    works["the paper's data-free grid, as directions"] = _engine(options, "grid", None)
    return works


def _engine(options: argparse.Namespace, what: str, output: Path | None) -> Work:
    this = [sys.executable, str(Path(__file__).resolve()), "--inside", what, "--folder", str(options.folder), "--size", options.size]
    return Work([*this, "--threads", str(options.threads)], output)


def _ours(recipe: dict[str, Any]) -> dict[str, Any]:
    return {"base": "base", "specialists": {f"domain{n}": f"specialist_{n}" for n in range(5)}, **recipe}


def _mergekits(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    models = [{"model": str(folder / f"specialist_{n}")} for n in range(5)]
    return {**recipe, "base_model": str(folder / "base"), "models": models, "dtype": "bfloat16"}


def _inside(what: str, folder: Path, threads: int) -> None:
    """Run one work of the engine in this process and print its wall seconds, imports not counted."""
    import numpy as np

    from mergebench.kernels.blocks import STORE
    from mergebench.merging.emit import Piece
    from mergebench.merging.engine import grid, merge
    from mergebench.merging.models import Models
    from mergebench.merging.plan import Recipe

    models = Models.open(folder / "base", {f"domain{n}": folder / f"specialist_{n}" for n in range(5)})
    kind, _, name = what.partition(":")
    recipes, scales = [Recipe("task_arithmetic")], SCALES[: int(name)] if kind == "scales" else []
    if kind == "grid":
        recipes = _grid_recipes()

    def consume(piece: Piece) -> None:
        if scales:
            rounded = np.empty(piece.base.size, np.uint16)
            for scale in scales:
                STORE["BF16"](piece.base, piece.directions[0], scale, rounded)

    def work() -> None:
        if kind == "merge":
            recipe = RECIPES[name]
            merge(models, recipe["method"], recipe["parameters"], folder=folder / "out", threads=threads)
        else:
            grid(models, recipes, consume, threads=threads)

    start, before = time.perf_counter(), time.process_time()
    work()
    print(json.dumps({"seconds": time.perf_counter() - start, "cpu": time.process_time() - before}))


def _grid_recipes() -> list[Any]:
    from mergebench.merging.candidates import candidates
    from mergebench.merging.plan import Recipe
    from mergebench.merging.registry import get

    found = []
    for method in GRID:
        for candidate in candidates(method, get(method).grid, [f"domain{n}" for n in range(5)]):
            if candidate.stage == "grid":
                found.append(Recipe(method, candidate.recipe))
    return found


def _table(works: dict[str, Work], options: argparse.Namespace) -> str:
    few = f" (mergekit: {options.mergekit_rounds})" if options.mergekit_python and options.mergekit_rounds else ""
    lines = [
        f"{options.size} ({synthetic.parameters(options.size) / 1e6:.0f} M parameters), base and five fine-tunes in bfloat16, files in the "
        f"page cache, {options.threads} threads; medians of {options.rounds}{few}. {_machine()}",
        "",
        "| work | wall, s | against others | CPU, s | against others | peak anonymous memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    for name, work in works.items():
        cells = [name]
        for measure in (lambda work: statistics.median(work.seconds), lambda work: statistics.median(work.processor)):
            cells += [f"{measure(work):.2f}", ", ".join(_ratios(works, name, measure))]
        lines.append(f"| {' | '.join(cells)} | {max(work.peaks) / 1e6:.0f} |")
    return "\n".join(lines)


def _ratios(works: dict[str, Work], name: str, measure: Callable[[Work], float]) -> Iterator[str]:
    """What a work costs against the floor, mergekit, and what it is compared with in the targets."""
    method, _, how = name.partition(", ")
    others = {"the floor": FLOOR}
    if how in ("engine", "whole command"):
        others["mergekit"] = f"{method}, mergekit"
    if "grid" in name:
        others = {"one Task Arithmetic merge": f"{TASK_ARITHMETIC}, engine"}
    if name == TEN:
        others = {"one scale": ONE}
    for said, other in others.items():
        if other in works and other != name:
            ratio = measure(works[name]) / measure(works[other])
            yield f"{1 / ratio:.1f} times less than {said}" if said == "mergekit" else f"{ratio:.2f} of {said}"


def _machine() -> str:
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    load = os.getloadavg()[1]
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GB, Python {platform.python_version()}; load average {load:.1f} at the end."


def _warm(folder: Path) -> None:
    for path in sorted(folder.glob("*/model.safetensors")):
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass


def _clear(path: Path | None) -> None:
    if path is None:
        return
    for found in (path, path.with_name(f"{path.name}.partial")):
        if found.is_dir():
            shutil.rmtree(found)
        else:
            found.unlink(missing_ok=True)


def _anonymous(process: int) -> int:
    """Bytes of anonymous memory of a process, 0 once it has ended."""
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _children() -> float:
    """CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


if __name__ == "__main__":
    main()
