"""Checks of a machine: limits, scratch space, sandbox, offline mode, GPUs. The same for this one and for the nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mergebench.workflow.doctor.facts import Facts
from mergebench.workflow.doctor.finding import Finding, failed, ok, skipped, warning

LEAST_FILES = 4096
LEAST_SHARED_MEMORY = 1 << 30
LEAST_TEMPORARY = 5 << 30
BFLOAT16_CAPABILITY = 8.0
GIB = 2**30

OfMachine = Callable[[Facts, str, dict[str, Any]], Iterator[Finding]]


def everywhere(check: OfMachine) -> Callable[[Facts], Iterator[Finding]]:
    """Apply a check to this machine and to every node that answered."""

    def inner(facts: Facts) -> Iterator[Finding]:
        yield from check(facts, "here", facts.here)
        for node in facts.nodes:
            if not node.problem:
                yield from check(facts, f"on {node.partition}", node.facts)

    inner.__doc__ = check.__doc__
    inner.__name__ = check.__name__
    return inner


@everywhere
def limits(facts: Facts, where: str, machine: dict[str, Any]) -> Iterator[Finding]:
    """Open files, locked memory, /dev/shm and the temporary folder."""
    files, locked = machine["limits"]["files"], machine["limits"]["locked_memory"]
    shm, temporary = machine["shared_memory_bytes"], machine["temporary"]
    problems = []
    if files is not None and files < LEAST_FILES:
        problems.append((f"{files} open files", f"`ulimit -n {LEAST_FILES}` before the workflow starts"))
    if locked is not None and where != "here" and any(r.gpu > 1 for r in facts.requests):
        problems.append((f"{locked >> 10} KiB of locked memory", "LimitMEMLOCK=infinity for slurmd, which NCCL over InfiniBand needs"))
    if shm is None or shm < LEAST_SHARED_MEMORY:
        problems.append((f"{(shm or 0) / GIB:.1f} GiB in /dev/shm", "a larger /dev/shm, which training over several GPUs uses"))
    if temporary["free_bytes"] < LEAST_TEMPORARY:
        problems.append((f"{temporary['free_bytes'] / GIB:.1f} GiB free in {temporary['folder']}", "TMPDIR on a larger disk"))
    name = f"limits {where}"
    if problems:
        yield warning(name, "; ".join(found for found, _ in problems), f"wanted: {'; '.join(todo for _, todo in problems)}.")
    else:
        shown = "unlimited" if files is None else f"{files}"
        yield ok(
            name,
            f"{shown} open files, {shm / GIB:.0f} GiB in /dev/shm, {temporary['free_bytes'] / GIB:.0f} GiB free in {temporary['folder']}",
        )


@everywhere
def sandbox(facts: Facts, where: str, machine: dict[str, Any]) -> Iterator[Finding]:
    """Can programs that a model wrote be confined?"""
    name, found = f"sandbox {where}", machine["sandbox"]
    told = f"network: {found['network']}, files: {found['files']}"
    if not facts.runs_code:
        yield skipped(name, "the preset runs no programs written by a model")
    elif found["strong"]:
        yield ok(name, told)
    elif facts.allow_weak_sandbox:
        yield warning(name, f"weak ({told}), which evaluation.allow_weak_sandbox accepts", "run the coding benchmarks on a newer kernel.")
    else:
        todo = (
            "use nodes with bubblewrap, or with Landlock (Linux 5.13 or newer) and seccomp, or set evaluation.allow_weak_sandbox "
            "to true to run programs written by the model with resource limits only."
        )
        severity = warning if where == "here" and facts.nodes else failed
        yield severity(name, f"weak ({told})", todo)


@everywhere
def offline(_: Facts, where: str, machine: dict[str, Any]) -> Iterator[Finding]:
    """Do libraries keep off the network when told to?"""
    if machine["offline"] == "refused":
        yield ok(f"offline mode {where}", "the hub's client refuses the network under HF_HUB_OFFLINE=1")
    else:
        todo = "install the locked huggingface_hub: jobs on nodes without network would otherwise wait for it."
        yield failed(f"offline mode {where}", machine["offline"], todo)


def gpu(facts: Facts) -> Iterator[Finding]:
    """Where jobs ask for GPUs: does a node have one, is its driver new enough for torch, can it compute in bfloat16?"""
    if not any(r.gpu for r in facts.requests):
        yield skipped("GPU", "no job of this preset asks for one")
        return
    partitions = {r.partition or "default" for r in facts.requests if r.gpu}
    asked = [node for node in facts.nodes if node.partition in partitions and not node.problem]
    if not asked:
        if facts.here["gpu"]["devices"] and facts.slurm is None:
            yield from _gpu(facts, "here", facts.here)
        else:
            yield skipped("GPU", facts.without_nodes if not facts.nodes else "the job on the node did not answer")
    for node in asked:
        yield from _gpu(facts, f"on {node.partition}", node.facts)


def _gpu(facts: Facts, where: str, machine: dict[str, Any]) -> Iterator[Finding]:
    name, devices, torch = f"GPU {where}", machine["gpu"]["devices"], machine["torch"]
    if not devices:
        todo = "check with `srun --gpus=1 nvidia-smi` that the partition gives jobs a GPU and that its nodes have the driver."
        yield failed(name, f"a job with one GPU on {machine['host']} saw none", todo)
        return
    first = devices[0]
    yield ok(name, f"{first['name']}, {int(float(first['memory_mib'])) / 1024:.0f} GiB, driver {first['driver']}, on {machine['host']}")
    yield from _driver(f"driver {where}", machine["gpu"]["driver_cuda"], torch)
    yield from _bfloat16(facts, f"bfloat16 {where}", first, torch)


def _driver(name: str, driver: str | None, torch: dict[str, Any]) -> Iterator[Finding]:
    """CUDA promises that a program built for one minor version runs with a driver of the same major version."""
    built = torch.get("cuda")
    if "error" in torch:
        yield failed(name, f"torch cannot be imported: {torch['error']}", "install the GPU lock anew.")
    elif built is None:
        yield failed(name, f"torch {torch['version']} was built without CUDA", "install envs/gpu.lock instead of the CPU lock.")
    elif driver and int(driver.split(".")[0]) < int(built.split(".")[0]):
        found = f"the driver supports CUDA {driver}, torch {torch['version']} was built for {built}"
        yield failed(name, found, "ask for a newer driver, use nodes that have one, or install NVIDIA's forward-compatibility package.")
    elif not torch["available"]:
        yield failed(
            name, f"torch {torch['version']} (CUDA {built}) cannot use the GPU", "see `python -c 'import torch; torch.cuda.init()'` there."
        )
    else:
        yield ok(name, f"supports CUDA {driver or 'unknown'}, torch was built for {built}")


def _bfloat16(facts: Facts, name: str, device: dict[str, str], torch: dict[str, Any]) -> Iterator[Finding]:
    capability = float(device["capability"])
    if capability >= BFLOAT16_CAPABILITY and torch.get("bf16") is not False:
        yield ok(name, f"compute capability {device['capability']}")
    elif facts.bfloat16:
        found = f"{device['name']} (compute capability {device['capability']}) has none"
        yield failed(name, found, "use GPUs of the Ampere generation or newer, or set the preset's dtypes to float32.")
    else:
        yield ok(name, "none, and the preset does not use it")


def nccl(facts: Facts) -> Iterator[Finding]:
    """What this command cannot know."""
    if any(r.gpu > 1 for r in facts.requests):
        yield skipped(
            "NCCL", "not tested here: whether GPUs of several processes or nodes reach each other shows in the first training job"
        )
    else:
        yield skipped("NCCL", "no job of this preset uses several GPUs")
