"""How long Snakemake plans: a dry run of the paper's campaign, and of one with ten times as many bases.

    python benchmarks/dag.py

Each base is evaluated with one job per benchmark. The larger campaign adds synthetic entries to a copy of the catalogue. Prints
a Markdown table with seconds, peak memory and jobs per rule, as docs/planning.md has it.
"""

import sys
from pathlib import Path

# A script's own folder is searched first, and statistics.py there would stand before Python's module of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter

import yaml

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("Snakefile", "config.yaml", "rules", "envs", "mergebench", "profiles")
COPIES = 10
Measured = tuple[float, float, float, Counter[str]]  # wall and CPU seconds, peak memory in MB, jobs by rule


def main() -> None:
    """Measure both campaigns and print the table."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--repeat", type=int, default=1, help="runs of each, of which the fastest counts (default: %(default)s)")
    repeat = options.parse_args().repeat
    with tempfile.TemporaryDirectory() as folder:
        columns = {}
        for title, copies in (("paper", 1), (f"{COPIES} times as many bases", COPIES)):
            campaign = prepare(Path(folder) / str(copies), copies)
            columns[title] = min((measure(campaign) for _ in range(repeat)), key=lambda measured: measured[0])
    print(f"Machine: {machine()}\n")
    print(table(columns))


def prepare(folder: Path, copies: int) -> Path:
    """A copy of the workflow in `folder` whose paper preset has `copies` of each base and one evaluation job per benchmark."""
    folder.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    catalogue, configuration = folder / "mergebench/catalogue/bases.yaml", folder / "config.yaml"
    entries, settings = yaml.safe_load(catalogue.read_text()), yaml.safe_load(configuration.read_text())
    preset = settings["presets"]["paper"]
    preset["evaluation"]["jobs"] = "benchmark"
    for names in (preset["bases"], preset["training"]["grpo"]["bases"]):
        names += [f"{base}-copy{number}" for number in range(1, copies) for base in names]
    for base in preset["bases"]:
        entries[base] = entries[re.sub(r"-copy\d+$", "", base)]
    catalogue.write_text(yaml.safe_dump(entries, sort_keys=False))
    configuration.write_text(yaml.safe_dump(settings, sort_keys=False))
    return folder


def measure(folder: Path) -> Measured:
    """A dry run of everything, in a process of its own."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules", "--cores", "1", "--config", "preset=paper"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        output = process.stdout.read() if process.stdout else ""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(output[-2000:])
    statistics = output.partition("Job stats:")[2].partition("\ntotal")[0]
    rules = Counter({rule: int(count) for rule, count in re.findall(r"^(\w+)\s+(\d+)$", statistics, re.MULTILINE)})
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6, rules


def table(columns: dict[str, Measured]) -> str:
    """The measurements as a Markdown table; the 23 rules of evaluation share a line."""
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]

    def line(title: str, cells: list[str]) -> None:
        lines.append(f"| {title} | {' | '.join(cells)} |")

    line("seconds", [f"{seconds:.1f}" for seconds, _, _, _ in columns.values()])
    line("CPU seconds", [f"{cpu:.1f}" for _, cpu, _, _ in columns.values()])
    line("peak memory (MB)", [f"{memory:,.0f}" for _, _, memory, _ in columns.values()])
    counts = [Counter[str]() for _ in columns]
    for total, (_, _, _, rules) in zip(counts, columns.values(), strict=True):
        for rule, count in rules.items():
            total["evaluate (one rule per benchmark)" if rule.startswith("evaluate_") else rule] += count
    line("jobs", [f"{sum(total.values()):,}" for total in counts])
    for rule in sorted(counts[0]):
        line(rule, [f"{total[rule]:,}" for total in counts])
    return "\n".join(lines)


def machine() -> str:
    """Processor, cores and memory of this machine."""
    models = re.findall(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{models[0] if models else 'unknown processor'}, {os.cpu_count()} cores, {memory:.0f} GB, Python {sys.version.split()[0]}"


if __name__ == "__main__":
    main()
