"""Energy that a job's devices have used, from counters of the hardware: GPUs through NVML, CPU packages through RAPL.

The counters are those of whole devices. What a GPU has used is the job's where the job holds the GPU alone. What a package has used
is that of everything on the machine: it is the job's only where the job holds all cores. Memory, disks, fans and power supplies
are in neither. A counter that is not there or cannot be read gives nothing, never zero.

NVML: nvmlDeviceGetTotalEnergyConsumption (Volta and later). RAPL: the kernel's Documentation/power/powercap; since 2020 its counters
can mostly be read by root alone (CVE-2020-8694).
"""

import contextlib
import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

POWERCAP = Path("/sys/class/powercap")
SAMPLED_EVERY = 30.0  # seconds; a package's counter starts anew at the earliest after about two minutes at full power


class Counters(Protocol):
    """Energy counters of some devices."""

    def joules(self) -> Mapping[str, float] | None:
        """What each device has used since an arbitrary moment, by the device's name; None where one of them does not say."""


class VisibleGpus:
    """The GPUs that this process may use."""

    def __init__(self) -> None:
        self._handles: dict[str, Any] = {}
        if os.environ.get("CUDA_VISIBLE_DEVICES") != "":
            with contextlib.suppress(Exception):  # no library, no driver, a name that NVML does not know: nothing is measured
                self._handles = _handles()

    def joules(self) -> Mapping[str, float] | None:
        """By UUID."""
        try:
            import pynvml

            return {uuid: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000 for uuid, handle in self._handles.items()} or None
        except Exception:  # not supported: older than Volta, or a part of a GPU (MIG)
            return None


class Packages:
    """The CPU packages of this machine; their counters start anew at a known value, which is made up for."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if re.fullmatch(r"intel-rapl:\d+", zone.name)]
        self._zones = [zone for zone in zones if (_text(zone / "name") or "package").startswith("package")]
        self._last: dict[str, int] = {}
        self._turns: dict[str, int] = {}

    def joules(self) -> Mapping[str, float] | None:
        """By package. To be asked more often than a counter starts anew."""
        found = {}
        for zone in self._zones:
            now, most = (_number(zone / name) for name in ("energy_uj", "max_energy_range_uj"))
            if now is None or most is None:
                return None
            if now < self._last.get(zone.name, 0):
                self._turns[zone.name] = self._turns.get(zone.name, 0) + 1
            self._last[zone.name] = now
            found[zone.name] = (now + self._turns.get(zone.name, 0) * most) / 1e6
        return found or None


class EnergyMeter:
    """What GPUs and CPU packages have used while entered."""

    def __init__(self, gpus: Counters | None = None, packages: Counters | None = None) -> None:
        self._counters = {"gpu": gpus or VisibleGpus(), "cpu_package": packages or Packages()}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="energy", daemon=True)
        self._start = self._read()

    def __enter__(self) -> "EnergyMeter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def joules(self) -> dict[str, dict[str, float]]:
        """So far, by kind ("gpu", "cpu_package") and device; no devices where a counter has failed, now or at the start."""
        used = {}
        for kind, now in self._read().items():
            before = self._start[kind]
            same = now and before and now.keys() == before.keys()
            used[kind] = {name: round(now[name] - before[name], 3) for name in now} if now and before and same else {}
        return used

    def _read(self) -> dict[str, Mapping[str, float] | None]:
        with self._lock:
            return {kind: counters.joules() for kind, counters in self._counters.items()}

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLED_EVERY):
            self._read()


def cores() -> dict[str, int | None]:
    """The cores of this machine, and how many of them Slurm has given to the job; None outside Slurm, and where it does not say."""
    held = os.environ.get("SLURM_CPUS_ON_NODE", "") if "SLURM_JOB_ID" in os.environ else ""
    return {"cores": os.cpu_count(), "cores_held": int(held) if held.isdecimal() else None}


def energy_record(usages: Sequence[Mapping[str, Any]], gpus: int, threads: int) -> dict[str, Any]:
    """Energy of a job, from what its processes have measured.

    Processes of one machine see the same devices: of a device, the process that has watched it longest counts.

    Args:
        usages: of every process: `host`, `joules` (of `EnergyMeter`) and what `cores` says.
        gpus: how many the job holds for itself.
        threads: how many cores the job has asked for; counts outside Slurm.

    Returns:
        `gpu` and `cpu_package`, joules, None where not measured (for GPUs: unless exactly those that the job holds were
        measured); `whole_node`, whether the job held all cores, so that the packages worked for nobody else.
    """
    measured: dict[str, dict[tuple[str, str], float]] = {"gpu": {}, "cpu_package": {}}
    for usage in usages:
        for kind, devices in measured.items():
            for name, joules in usage["joules"][kind].items():
                where = (usage["host"], name)
                devices[where] = max(joules, devices.get(where, 0.0))
    hosts = {usage["host"] for usage in usages}
    every_host = {host for host, _ in measured["cpu_package"]} == hosts
    held = [usage["cores_held"] if usage["cores_held"] is not None else threads for usage in usages]
    return {
        "gpu": round(sum(measured["gpu"].values()), 3) if 0 < gpus == len(measured["gpu"]) else None,
        "cpu_package": round(sum(measured["cpu_package"].values()), 3) if every_host else None,
        "whole_node": all(usage["cores"] is not None and mine >= usage["cores"] for usage, mine in zip(usages, held, strict=True)),
    }


def _handles() -> dict[str, Any]:
    """NVML's handles of the GPUs of `CUDA_VISIBLE_DEVICES`, of all without it, by UUID. Numbers are those of the order on the PCI bus."""
    import pynvml

    pynvml.nvmlInit()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(pynvml.nvmlDeviceGetCount())] if named is None else named.replace(" ", "").split(",")
    handles = [
        pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdecimal() else pynvml.nvmlDeviceGetHandleByUUID(name) for name in names
    ]
    return {str(pynvml.nvmlDeviceGetUUID(handle)): handle for handle in handles}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdecimal() else None
