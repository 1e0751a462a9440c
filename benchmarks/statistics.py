"""Memory and time of each calibration statistic on a synthetic Llama of 1.1 billion parameters, and what follows for 8 and 9 billion.

    python benchmarks/statistics.py --folder /tmp/bench

Needs no network: it writes a random base in bfloat16, a fine-tune near it, and rows of random tokens, and runs `mergebench run statistics`
on them, each kind and number of rows in a process of its own. Works on a GPU where there is one (`--gpu`), else on the CPU. Prints tables,
and everything as JSON on the last line. Not a test: nothing here fails.

What 1,000 rows of 400 tokens (300 steps of 8 rows, for a mask) take with 8 and 9 billion parameters follows so:
memory and disk from the tensors that are held at one time (`mergebench.workflow.statistics_cost`, whose sums the measured ones are to be
compared with); hours on an A100 from FLOPs, bytes of files and bytes copied at the rates of `mergebench.workflow.estimates`;
CPU hours of this machine from the smallest and the largest number of rows: the line through the two in tokens, in proportion to parameters.

Memory is the process's own (`RssAnon`), what it maps from files besides (base and specialist, which the system may drop at
any time), and on a GPU the most that its allocator held. "computed" is what the job itself adds up from the tensors it holds.
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
import random
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent

from benchmarks import synthetic
from mergebench import catalogue
from mergebench.merging.statistics.settings import KINDS
from mergebench.workflow.estimates import FLOAT_RATE, LINK_RATE, MATRIX_RATE, STREAM_RATE
from mergebench.workflow.statistics_cost import GB, cost

TARGETS = ("llama-3.1-8b", "gemma-2-9b")
ROWS, TOKENS = 1000, 400  # of the paper's calibration sets
SAMPLED_EVERY = 0.1  # seconds


@dataclass(frozen=True)
class Found:
    """One measurement: seconds of wall and of CPUs, bytes of memory (own, own and mapped, on the GPU), the job's record, tokens seen."""

    kind: str
    rows: int
    wall: float
    cpu: float
    own: int
    resident: int
    gpu: int
    record: dict[str, Any]
    tokens: int
    written: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to work; weights that are there are used again (default: a temporary folder)")
    parser.add_argument("--size", choices=list(synthetic.SIZES), default="1B")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 6], help="calibration rows, one measurement each (default: 2 6)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of a row, a quarter of them the prompt (default: %(default)s)")
    parser.add_argument("--memory", type=int, default=12_000, help="memory that a job may plan with, in MB (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--gpu", action="store_true", help="on the GPU, each kind in bfloat16 where it may be")
    parser.add_argument("--set", nargs="*", default=[], metavar="KIND.KEY=JSON", help="settings of a kind, such as mask.l1=1e-9")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        inputs = prepare(folder, options)
        chosen = settings(options)
        found = [measure(kind, rows, chosen[kind], folder, inputs, options) for kind in options.kinds for rows in sorted(options.rows)]
        report(options, chosen, found)


def settings(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Settings by kind, from the options."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    if options.gpu:
        found["fisher"]["dtype"] = found["gram"]["dtype"] = "bfloat16"
    for one in options.set:
        name, _, value = one.partition("=")
        kind, _, key = name.partition(".")
        found[kind][key] = json.loads(value)
    return found


def prepare(folder: Path, options: argparse.Namespace) -> dict[str, Path]:
    """Write models, tokenizer and rows; returns the inputs of the stage."""
    base, (specialist,) = synthetic.write_family(folder / f"synthetic-{options.size}", options.size, specialists=1)
    models = folder / "models" / "synthetic"
    for source, name in ((base, "base"), (specialist, "specialist_math")):
        (models / name).mkdir(parents=True, exist_ok=True)
        link = models / name / "weights"
        link.unlink(missing_ok=True)
        link.symlink_to(source.resolve())
        synthetic.write_tokenizer(source)
    data = folder / "train_math"
    data.mkdir(exist_ok=True)
    rng = random.Random(0)

    def words(count: int) -> str:
        return " ".join(f"t{rng.randrange(4, synthetic.VOCABULARY)}" for _ in range(count))

    prompt = options.tokens // 4
    rows = [
        {"id": f"row-{i}", "prompt": words(prompt - 1), "response": words(options.tokens - prompt - 1)} for i in range(max(options.rows))
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (data / "calibration.jsonl").write_text(text)
    files = {"calibration.jsonl": {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}}
    (data / "manifest.json").write_text(json.dumps({"dataset": "train_math", "files": files}))
    weights = {name: models / folder / "weights" for name, folder in (("base", "base"), ("specialist", "specialist_math"))}
    return {**weights, "data": data / "manifest.json"}


def measure(kind: str, rows: int, chosen: dict[str, Any], folder: Path, inputs: dict[str, Path], options: argparse.Namespace) -> Found:
    """Run the job of one kind on so many rows, and watch its memory. A mask takes them two at a time, one step for each two."""
    if kind == "mask":
        chosen = {"steps": max(1, rows // 2), "batch_size": 2, **chosen}
    out = folder / "out" / kind
    shutil.rmtree(out, ignore_errors=True)
    settings = {kind: {"rows": rows, **chosen}}
    spec = {"base": "synthetic", "domain": "math", "kinds": [kind], "settings": settings, "template": "chat", "seed": 0}
    outputs = {"manifest": out / "manifest.json", kind: out / "statistics.safetensors", "cost": out / "cost.json"}
    command = [sys.executable, "-m", "mergebench", "run", "statistics", "--threads", str(options.threads)]
    command += ["--state", str(out / "state"), "--spec", json.dumps(spec), "--requested", f"mem_mb={options.memory}"]
    command += ["--input", *(f"{name}={path}" for name, path in inputs.items())]
    command += ["--output", *(f"{name}={path}" for name, path in outputs.items())]
    hidden = {} if options.gpu else {"CUDA_VISIBLE_DEVICES": ""}
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": str(options.threads)} | hidden
    print(f"{kind}, {rows} rows ...", file=sys.stderr, flush=True)
    process = subprocess.Popen(command, env=environment)
    own = resident = 0
    while process.poll() is None:
        found = memory_of(process.pid)
        own, resident = max(own, found[0]), max(resident, sum(found))
        time.sleep(SAMPLED_EVERY)
    if process.returncode:
        sys.exit(f"{kind}: exit status {process.returncode}")
    record = json.loads(outputs["cost"].read_text())
    facts = json.loads(outputs["manifest"].read_text())["kinds"][kind]
    seen = rows * options.tokens
    if kind == "mask":
        seen = (chosen["steps"] + 1) * chosen["batch_size"] * options.tokens
    print(json.dumps({"kind": kind, "facts": facts, "record": record}), file=sys.stderr)
    written = outputs[kind].stat().st_size
    return Found(kind, rows, record["wall_seconds"], record["cpu_seconds"], own, resident, record["gpu_peak_bytes"], record, seen, written)


def memory_of(pid: int) -> tuple[int, int]:
    """Bytes that a process has of its own, and that it maps from files."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    fields = dict(line.split(":", 1) for line in status.splitlines() if line.startswith("Rss"))
    return tuple(int(fields.get(name, "0 kB").split()[0]) * 1024 for name in ("RssAnon", "RssFile"))  # type: ignore[return-value]


def report(options: argparse.Namespace, chosen: dict[str, dict[str, Any]], found: list[Found]) -> None:
    """Print what was measured and what follows from it."""
    import torch

    parameters = synthetic.parameters(options.size)
    device = torch.cuda.get_device_name() if options.gpu else f"{options.threads} threads, no GPU"
    print(f"\n{platform.machine()}, {device}, torch {torch.__version__}; {parameters / 1e9:.2f} billion parameters, bfloat16 files")
    print(f"rows of {options.tokens} tokens; a mask: steps of 2 rows, and the first once more\n")
    print("| kind | tokens | wall s | CPU s | own GB | with mapped files GB | GPU GB | computed GB | file GB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for one in found:
        computed = sum(size for part, size in one.record["memory_bytes"][one.kind].items() if "disk" not in part)
        sizes = " | ".join(f"{size / GB:.2f}" for size in (one.own, one.resident, one.gpu, computed, one.written))
        print(f"| {one.kind} | {one.tokens} | {one.wall:.0f} | {one.cpu:.0f} | {sizes} |")
    print("\nComputed, by part (GB):")
    largest = {one.kind: one for one in found}
    for one in largest.values():
        parts = ", ".join(f"{part} {size / GB:.2f}" for part, size in one.record["memory_bytes"][one.kind].items())
        print(f"- {one.kind}: {parts}")
    smallest = {one.kind: one for one in reversed(found)}
    following = [row for kind in largest for row in extrapolated(smallest[kind], largest[kind], chosen[kind], parameters)]
    print(f"\nFor {ROWS} rows of {TOKENS} tokens, or 300 steps of 8 rows; default settings:\n")
    print("| model | kind | device GB | host GB | file GB | disk while it runs GB | hours on an A100 | such CPU hours |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for row in following:
        numbers = " | ".join(f"{row[name]:.1f}" for name in ("device", "host", "written", "working", "gpu_hours"))
        hours = "" if row["cpu_hours"] is None else f"{row['cpu_hours']:,.0f}"
        print(f"| {row['model']} | {row['kind']} | {numbers} | {hours} |")
    print(json.dumps({"measured": [vars(one) for one in found], "extrapolated": following, "device": device}))


def extrapolated(least: Found, most: Found, chosen: dict[str, Any], parameters: int) -> list[dict[str, Any]]:
    """What follows for the targets from two measurements of a kind; CPU hours are None where there is one."""
    rows = []
    for target in TARGETS:
        size = int(catalogue.bases()[target]["parameters"])
        full = KINDS[most.kind](**chosen)
        need = cost(full, size, 2, ROWS, TOKENS)
        seen = (full.steps + 1) * full.batch_size * TOKENS if most.kind == "mask" else ROWS * TOKENS  # type: ignore[attr-defined]
        each = (most.cpu - least.cpu) / (most.tokens - least.tokens) if most.rows > least.rows else None
        seconds = need.flops / (MATRIX_RATE if need.half else FLOAT_RATE) + need.streamed / STREAM_RATE + need.copied / LINK_RATE
        rows.append(
            {
                "model": catalogue.bases()[target]["title"],
                "kind": most.kind,
                "device": sum(need.device.values()) / GB,
                "host": sum(need.host.values()) / GB,
                "written": need.written / GB,
                "working": need.working / GB,
                "gpu_hours": seconds / 3600,
                "cpu_hours": None if each is None else (most.cpu + each * (seen - most.tokens)) * size / parameters / 3600,
            }
        )
    return rows


if __name__ == "__main__":
    main()
