"""What a job cost: time, memory, GPUs and energy of its processes, on one machine or several."""

import contextlib
import os
import resource
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mergebench.attempts import Attempt
from mergebench.energy import EnergyMeter, cores, energy_record

PAGE = resource.getpagesize()
SAMPLED_EVERY = 1.0  # seconds


class PeakMemory:
    """The most memory that this process and those below it held at one time, sampled every second while entered."""

    def __init__(self) -> None:
        self._peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def bytes(self) -> int:
        """Never less than the highest that the kernel has seen of one process alone, between two samples too."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        return max(self._peak, own_peak_bytes(), children * 1024)

    def _watch(self) -> None:
        while True:
            self._peak = max(self._peak, tree_bytes(os.getpid()))
            if self._stop.wait(SAMPLED_EVERY):
                return


def own_peak_bytes() -> int:
    """The most memory that this program has held. Not `ru_maxrss`, which begins with what the process held before it became this
    program: all of its parent's, where that is large."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    words = status.partition("VmHWM:")[2].split(maxsplit=1)
    return (int(words[0]) if words else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def tree_bytes(pid: int) -> int:
    """Resident memory of a process and all below it, in bytes; of those below without what they map from files."""
    total = 0
    queue = [pid]
    while queue:
        one = queue.pop()
        with contextlib.suppress(OSError, ValueError):  # it may end at any moment
            resident, shared = map(int, Path(f"/proc/{one}/statm").read_text().split()[1:3])
            total += (resident if one == pid else max(0, resident - shared)) * PAGE
            for task in Path(f"/proc/{one}/task").iterdir():
                queue += map(int, (task / "children").read_text().split())
    return total


def gpus_used() -> int:
    """Number of CUDA devices visible to a process that has initialised CUDA, else 0."""
    torch = sys.modules.get("torch")
    return torch.cuda.device_count() if torch is not None and torch.cuda.is_initialized() else 0


def gpu_peak_bytes() -> int:
    """Peak memory that torch has allocated on its CUDA devices, summed, in bytes."""
    torch = sys.modules.get("torch")
    return sum(torch.cuda.max_memory_allocated(i) for i in range(gpus_used())) if torch is not None else 0


def gpus_visible() -> int:
    """Number of GPUs that this process may use, without loading a library: by `CUDA_VISIBLE_DEVICES`, else by device files."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return sum(1 for name in named.split(",") if name.strip() not in ("", "-1", "NoDevFiles"))
    return sum(1 for path in Path("/dev").glob("nvidia[0-9]*"))


def gpus_held(requested: dict[str, int]) -> int:
    """Number of GPUs that nobody else can use meanwhile: those that the job asked for, where there are any."""
    return requested["gpu"] if "gpu" in requested and gpus_visible() else gpus_used()


def cpu_seconds() -> float:
    """CPU time of this process and of those below it that have ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def process_usage(memory: PeakMemory, energy: EnergyMeter) -> dict[str, Any]:
    """What this process and those below it have used so far."""
    return {
        "host": hostname(),
        "cpu_seconds": round(cpu_seconds(), 3),
        "peak_rss_bytes": memory.bytes,
        "gpus_visible": gpus_visible(),
        "gpu_peak_bytes": gpu_peak_bytes(),
        "joules": energy.joules(),
        **cores(),
    }


def energy_of(energy: EnergyMeter, requested: dict[str, int]) -> dict[str, Any]:
    """Energy of the work of this one process so far, as in a cost record."""
    usage = {"host": hostname(), "joules": energy.joules(), **cores()}
    return energy_record([usage], gpus_held(requested), requested.get("threads", 0))


def hostname() -> str:
    """The node as Slurm calls it, or the machine."""
    return os.environ.get("SLURMD_NODENAME") or os.uname().nodename


def cost_record(
    identity: dict[str, Any],
    wall_seconds: float,
    memory: PeakMemory,
    energy: EnergyMeter,
    attempt: Attempt,
    requested: dict[str, int],
    ranks: Sequence[dict[str, Any]],
    timings: dict[str, float],
    memory_parts: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, Any]:
    """Wall, CPU and GPU seconds, peak memory, energy, where and when the job ran, what it asked for and what failed before.

    All but `attempts` is of the attempt that has succeeded.

    Args:
        identity: stage and names of the job.
        ranks: `process_usage` of each of several tasks that did the work; empty where this process did it. Memory is
            then that of the node with the most, as a node's limit counts it.
        memory_parts: what the stage computed that it needs, in bytes, to be compared with the measured peaks.
    """
    own = process_usage(memory, energy)
    works = list(ranks) or [own]
    hosts = sorted({work["host"] for work in works})
    on_host = {host: [work for work in works if work["host"] == host] for host in hosts}
    launcher = resource.getrusage(resource.RUSAGE_SELF)
    worked = sum(work["cpu_seconds"] for work in ranks) + launcher.ru_utime + launcher.ru_stime if ranks else own["cpu_seconds"]
    held = gpus_held(requested)
    return {
        **identity,
        "wall_seconds": round(wall_seconds, 3),
        "cpu_seconds": round(worked, 3),
        "peak_rss_bytes": max(own["peak_rss_bytes"], *(sum(work["peak_rss_bytes"] for work in some) for some in on_host.values())),
        "gpu_seconds": round(wall_seconds * held, 3),
        "gpu_peak_bytes": sum(work["gpu_peak_bytes"] for work in works),
        "energy_joules": energy_record([*ranks, own], held, requested.get("threads", 0)),
        "timing": {name: round(seconds, 3) for name, seconds in sorted(timings.items())},
        **({"memory_bytes": {name: dict(parts) for name, parts in sorted(memory_parts.items())}} if memory_parts else {}),
        "requested": requested,
        "attempts": attempt.summary(),
        "run": {
            "hosts": hosts,
            "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
            "restarts": attempt.restarts,
            "attempt": len(attempt.failed) + 1,
            "tasks": len(works),
            "gpus_visible": sum(max(work["gpus_visible"] for work in some) for some in on_host.values()),
            "start": attempt.start.isoformat(timespec="seconds"),
            "end": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }
