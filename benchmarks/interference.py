"""Time and memory of the sums over task vectors on synthetic checkpoints, against the same sums written plainly in torch.

    python benchmarks/interference.py --size 0.2B --folder results/benchmark

Works of one round run one after the other and rounds follow each other, so that all share whatever else the machine does; the table
has the medians. Every count and product of the two is compared. Peak memory is anonymous memory (RssAnon): mapped input files are not
in it. Not a test: nothing here fails but for sums that differ.
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
import statistics
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks import synthetic
from benchmarks.merge import Work
from mergebench.checkpoints.reader import Checkpoint
from mergebench.vectors.interference import TOP
from mergebench.vectors.measure import measure
from mergebench.vectors.relations import Relations, relate

ENGINE, NAIVE = "one walk, threads: {}", "plain torch, threads: {}"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=synthetic.SIZES, default="0.2B")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "mergebench-benchmark", help="for checkpoints")
    parser.add_argument("--threads", type=int, nargs="*", default=sorted({1, len(os.sched_getaffinity(0))}))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder.resolve() / options.size
    if options.inside:
        print(json.dumps(_inside(folder, options.inside[0], int(options.inside[1]))))
        return
    base, specialists = synthetic.write_family(folder, options.size)
    _find_limits(folder, base, specialists)
    inside = [sys.executable, __file__, "--size", options.size, "--folder", str(options.folder), "--inside"]
    works = {
        form.format(threads): Work([*inside, kind, str(threads)])
        for threads in options.threads
        for kind, form in (("engine", ENGINE), ("naive", NAIVE))
    }
    for name, work in works.items():
        if "walk" in name:  # the first run of an installation compiles the kernels
            work.run()
            for measured in (work.seconds, work.processor, work.peaks):
                measured.clear()
    for _ in range(options.rounds):
        for work in works.values():
            work.run()
    _compare(folder)
    print(_table(works, options))


def _open(folder: Path) -> tuple[Checkpoint, list[Checkpoint]]:
    return Checkpoint(folder / "base"), [Checkpoint(path) for path in sorted(folder.glob("specialist_*"))]


def _find_limits(folder: Path, base: Path, specialists: list[Path]) -> None:
    """Thresholds, which the stage takes from spectra that are there: their making is not measured here."""
    origin, tuned = Checkpoint(base), [Checkpoint(path) for path in specialists]
    spectra = measure(origin, tuned, origin.names, densities=[[TOP]] * len(tuned), threads=len(os.sched_getaffinity(0)))
    np.save(folder / "limits.npy", np.array([spectrum.cut(round(TOP * spectrum.total)).limit for spectrum in spectra], np.uint32))


def _inside(folder: Path, what: str, threads: int) -> dict[str, float]:
    """Do one work in this process, keep its sums, and say its seconds, imports not counted."""
    limits = np.load(folder / "limits.npy")
    if what == "naive":
        import torch

        torch.set_num_threads(threads)
    base, specialists = _open(folder)
    start, before = time.perf_counter(), time.process_time()
    if what == "engine":
        total = Relations.none(len(specialists))
        for _, part in relate(base, specialists, base.names, limits, threads=threads):
            total.add(part)
        found: dict[str, Any] = vars(total)
    else:
        found = _naive(base, specialists, limits.view(np.float32).tolist())
    taken = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - before}
    np.savez(folder / f"{what}.npz", **found)
    return taken


def _naive(base: Checkpoint, specialists: list[Checkpoint], limits: list[float]) -> dict[str, Any]:
    """The sums as one would write them down, tensor by tensor."""
    import torch

    total = Relations.none(len(specialists))
    for name in base.names:
        origin = base.tensor(name).float()
        taus = [model.tensor(name).float() - origin for model in specialists]
        large = [torch.where(tau.abs() >= limit, tau, 0.0) for tau, limit in zip(taus, limits, strict=True)]
        elected = torch.stack([tau.double() for tau in large]).sum(0).sign()
        total.entries += origin.numel()
        total.base_squares += float(origin.double().square().sum())
        for a, (first, kept) in enumerate(zip(taus, large, strict=True)):
            total.elected[a] += int((kept * elected > 0).sum())
            for b in range(a, len(taus)):
                signs, both = first.sign() * taus[b].sign(), kept.sign() * large[b].sign()
                total.products[a, b] += float((first.double() * taus[b].double()).sum())
                total.agreements[a, b] += int((signs > 0).sum())
                total.conflicts[a, b] += int((signs < 0).sum())
                total.large_agreements[a, b] += int((both > 0).sum())
                total.large_conflicts[a, b] += int((both < 0).sum())
        for place, parts in ((0, taus), (2, large)):
            signs = torch.stack([tau.sign() for tau in parts])
            total.contests[place] += int((signs.abs().sum(0) > 1).sum())
            total.contests[place + 1] += int(((signs.amax(0) > 0) & (signs.amin(0) < 0)).sum())
    for table in (total.products, total.agreements, total.conflicts, total.large_agreements, total.large_conflicts):
        table[:] = np.triu(table) + np.triu(table, 1).T
    return vars(total)


def _compare(folder: Path) -> None:
    with np.load(folder / "engine.npz") as ours, np.load(folder / "naive.npz") as plain:
        for name in ours.files:
            if not np.allclose(ours[name], plain[name], rtol=1e-9, atol=1e-9 * np.abs(plain[name]).max()):
                raise SystemExit(f"{name} differs: {ours[name]} against {plain[name]}")


def _table(works: dict[str, Work], options: argparse.Namespace) -> str:
    billions = synthetic.parameters(options.size) / 1e9
    columns = (
        "work",
        "wall, s per 10⁹ parameters",
        "against torch",
        "CPU, s per 10⁹ parameters",
        "against torch",
        "peak anonymous memory, MB",
    )
    lines = [f"| {' | '.join(columns)} |"]
    lines.append("|---|---|---|---|---|---|")
    for threads in options.threads:
        ours, plain = works[ENGINE.format(threads)], works[NAIVE.format(threads)]
        for form, work in ((ENGINE, ours), (NAIVE, plain)):
            cells = []
            for taken, others in ((work.seconds, plain.seconds), (work.processor, plain.processor)):
                median = statistics.median(taken)
                cells += [f"{median / billions:.1f}", "" if work is plain else f"{statistics.median(others) / median:.1f} times less"]
            lines.append(f"| {form.format(threads)} | {' | '.join(cells)} | {max(work.peaks) / 1e6:.0f} |")
    processor = next((x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{options.size} ({billions * 1000:.0f} M parameters), base and five fine-tunes in bfloat16, files in the page cache; medians of "
        f"{options.rounds}. {os.cpu_count()} cores of {processor}, {memory:.0f} GB, Python {platform.python_version()}; load average "
        f"{os.getloadavg()[1]:.1f} at the end.\n\n" + "\n".join(lines)
    )


if __name__ == "__main__":
    main()
