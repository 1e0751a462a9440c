"""Write the lock files from pyproject.toml: cpu.lock (what runs), dev.lock (what tests), cpu.yaml (the same for conda).

The lock names the CPU build of torch (``+cpu``), so that no CUDA package is installed.
"""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TORCH = "torch==2.13.0"
CONDA = """# Made by envs/lock.py from cpu.lock: do not edit.
channels: [conda-forge]
dependencies:
  - python=3.11
  - pip
  - pip:
      - --extra-index-url https://download.pytorch.org/whl/cpu
"""


def compile_lock(name: str, *options: str) -> Path:
    """Resolve pyproject.toml, with options such as extras, into a pinned list."""
    target = FOLDER / f"{name}.lock"
    command = [sys.executable, "-m", "piptools", "compile", "--quiet", "--strip-extras", "--no-header", "--no-annotate"]
    hidden = ["--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host", "--allow-unsafe", "--output-file", str(target)]
    subprocess.run([*command, *hidden, *options, "pyproject.toml"], check=True, cwd=FOLDER.parent)
    lines = [line for line in target.read_text().splitlines() if line and not line.startswith(("#", "--"))]
    lines = [f"{TORCH}+cpu" if line.startswith(TORCH) else line for line in lines]
    header = "# Made by envs/lock.py from pyproject.toml for Python 3.11 on Linux x86-64: do not edit.\n"
    target.write_text(header + "\n".join(lines) + "\n")
    return target


def main() -> None:
    """Write all of them."""
    cpu = compile_lock("cpu", "--extra", "slurm")
    compile_lock("dev", "--extra", "slurm", "--extra", "dev")
    pins = [line for line in cpu.read_text().splitlines() if not line.startswith("#")]
    (FOLDER / "cpu.yaml").write_text(CONDA + "".join(f"      - {pin}\n" for pin in pins))


if __name__ == "__main__":
    main()
