"""Energy is what counters say of devices that the job had for itself; what they do not say is unknown, not zero."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mergebench.energy import EnergyMeter, Packages, VisibleGpus, cores, energy_record

MOST = 262_143_328_850


class Fixed:
    """Counters that say one thing after another."""

    def __init__(self, *said: dict[str, float] | None) -> None:
        self.said = list(said)

    def joules(self) -> dict[str, float] | None:
        return self.said.pop(0) if len(self.said) > 1 else self.said[0]


NOTHING = Fixed(None)


def zone(powercap: Path, name: str, microjoules: int | str, label: str) -> Path:
    folder = powercap / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{label}\n")
    (folder / "max_energy_range_uj").write_text(f"{MOST}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder


def usage(host: str, gpu: dict[str, float] | None = None, package: dict[str, float] | None = None, cores_: int = 8, held=None) -> dict:
    return {"host": host, "joules": {"gpu": gpu or {}, "cpu_package": package or {}}, "cores": cores_, "cores_held": held}


def test_packages_are_summed_and_their_parts_are_not(tmp_path):
    zone(tmp_path, "intel-rapl:0", 1_000_000, "package-0")
    zone(tmp_path, "intel-rapl:1", 5_000_000, "package-1")
    for name, label in (
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:0:1", "dram"),
        ("intel-rapl:2", "psys"),
        ("intel-rapl-mmio:0", "package-0"),
    ):
        zone(tmp_path, name, 7_000_000, label)
    assert Packages(tmp_path).joules() == {"intel-rapl:0": 1.0, "intel-rapl:1": 5.0}


def test_a_counter_that_starts_anew_goes_on(tmp_path):
    zone(tmp_path, "intel-rapl:0", MOST - 2_000_000, "package-0")
    meter = EnergyMeter(NOTHING, Packages(tmp_path))
    for microjoules, joules in ((1_000_000, 3.0), (MOST - 1, MOST / 1e6 + 2), (500_000, MOST / 1e6 + 2.5)):
        zone(tmp_path, "intel-rapl:0", microjoules, "package-0")
        assert meter.joules()["cpu_package"] == {"intel-rapl:0": pytest.approx(joules, abs=1e-2)}


@pytest.mark.parametrize("broken", ["energy_uj", "max_energy_range_uj"])
def test_one_package_that_cannot_be_read_leaves_all_unknown(tmp_path, broken):
    zone(tmp_path, "intel-rapl:0", 1, "package-0")
    file = zone(tmp_path, "intel-rapl:1", 1, "package-1") / broken
    file.unlink()
    file.mkdir()  # reading fails, as it does for users other than root
    assert Packages(tmp_path).joules() is None
    assert EnergyMeter(NOTHING, Packages(tmp_path)).joules() == {"gpu": {}, "cpu_package": {}}


@pytest.mark.parametrize("content", ["", "nonsense", "-5", "1.5"])
def test_a_counter_without_a_number_is_unknown(tmp_path, content):
    zone(tmp_path, "intel-rapl:0", content, "package-0")
    assert Packages(tmp_path).joules() is None


def test_a_machine_without_counters_measures_nothing(tmp_path):
    assert Packages(tmp_path / "none").joules() is None


def test_a_counter_that_fails_meanwhile_leaves_the_job_unknown():
    meter = EnergyMeter(Fixed({"a": 1.0}, None), Fixed({"b": 1.0}, {"b": 4.5}))
    assert meter.joules() == {"gpu": {}, "cpu_package": {"b": 3.5}}


def test_a_device_that_joins_meanwhile_is_not_counted_from_zero():
    assert EnergyMeter(Fixed({"a": 1.0}, {"a": 2.0, "b": 900.0}), NOTHING).joules()["gpu"] == {}


def nvml(monkeypatch, millijoules: dict[str, int | None]) -> None:
    """NVML as it is seen through its Python binding: GPUs by number, UUID and total energy (None: not supported)."""
    uuids = list(millijoules)

    def handle(uuid: str) -> str:
        if uuid not in millijoules:
            raise ValueError("NVML_ERROR_NOT_FOUND")
        return uuid

    def total(uuid: str) -> int:
        found = millijoules[uuid]
        if found is None:
            raise ValueError("NVML_ERROR_NOT_SUPPORTED")
        return found

    fake = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: len(uuids),
        nvmlDeviceGetHandleByIndex=lambda index: uuids[index],
        nvmlDeviceGetHandleByUUID=handle,
        nvmlDeviceGetUUID=lambda handle: handle,
        nvmlDeviceGetTotalEnergyConsumption=total,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)


@pytest.mark.parametrize(
    ("visible", "joules"),
    [
        (None, {"GPU-a": 1.5, "GPU-b": 2.0, "GPU-c": 4.0}),
        ("2", {"GPU-c": 4.0}),
        ("0, 1", {"GPU-a": 1.5, "GPU-b": 2.0}),
        ("GPU-b", {"GPU-b": 2.0}),
        ("", None),
        ("-1", None),
        ("7", None),
        ("GPU-of-another-node", None),
    ],
)
def test_only_gpus_that_the_process_may_use_are_read(monkeypatch, visible, joules):
    nvml(monkeypatch, {"GPU-a": 1500, "GPU-b": 2000, "GPU-c": 4000})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert VisibleGpus().joules() == joules


def test_one_gpu_without_a_counter_leaves_all_unknown(monkeypatch):
    nvml(monkeypatch, {"GPU-a": 1500, "GPU-b": None})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert VisibleGpus().joules() is None


def test_without_the_library_nothing_is_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert VisibleGpus().joules() is None


def test_processes_of_a_machine_see_the_same_devices_and_those_of_several_do_not():
    works = [
        usage("a", {"x": 10.0, "y": 20.0}, {"p": 5.0}),
        usage("a", {"x": 9.0, "y": 21.0}, {"p": 6.0}),
        usage("b", {"z": 40.0}, {"p": 7.0}),
    ]
    assert energy_record(works, gpus=3, threads=8) == {"gpu": 71.0, "cpu_package": 13.0, "whole_node": True}


def test_processes_with_a_gpu_each_are_summed():
    assert energy_record([usage("a", {"x": 10.0}), usage("a", {"y": 20.0})], gpus=2, threads=1)["gpu"] == 30.0


@pytest.mark.parametrize("held", [0, 1, 4])
def test_gpus_that_are_not_exactly_those_of_the_job_are_unknown(held):
    """Without Slurm a process sees all GPUs of the machine, whatever its share."""
    assert energy_record([usage("a", {"x": 10.0, "y": 20.0})], gpus=held, threads=1)["gpu"] is None


def test_packages_of_some_nodes_only_are_unknown():
    assert energy_record([usage("a", package={"p": 5.0}), usage("b")], gpus=0, threads=8)["cpu_package"] is None


@pytest.mark.parametrize(("threads", "held", "whole"), [(8, None, True), (4, None, False), (0, None, False), (1, 8, True), (8, 4, False)])
def test_the_node_is_the_jobs_if_it_has_all_cores(threads, held, whole):
    assert energy_record([usage("a", held=held)], gpus=0, threads=threads)["whole_node"] is whole


def test_slurm_says_how_many_cores_the_job_has(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    assert cores()["cores_held"] is None, "left over in a shell outside a job"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert cores()["cores_held"] == 6
