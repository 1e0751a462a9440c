"""A copy of the workflow in a folder of its own, which a test may edit, run, kill and run again."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("Snakefile", "config.yaml", "rules", "envs", "mergebench", "profiles")


class Campaign:
    """The workflow in `folder`, with its own copy of the package."""

    def __init__(self, folder: Path, preset: str = "micro") -> None:
        self.folder = folder
        self.preset = preset

    @classmethod
    def create(cls, folder: Path, preset: str = "micro") -> "Campaign":
        folder.mkdir(parents=True, exist_ok=True)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder / name)
        return cls(folder, preset)

    def fork(self, folder: Path) -> "Campaign":
        """A copy of everything, results and Snakemake's records included, with times kept."""
        shutil.copytree(self.folder, folder, symlinks=True, copy_function=shutil.copy2)
        return Campaign(folder, self.preset)

    @property
    def results(self) -> Path:
        return self.folder / "results" / self.preset

    def command(self, *options: str) -> list[str]:
        tool = [sys.executable, "-m", "snakemake", "--cores", "2", "--config", f"preset={self.preset}", "--rerun-incomplete"]
        return [*tool, "--scheduler", "greedy", *options]

    def start(self, *options: str, warm: bool = True) -> subprocess.Popen[str]:
        """Start a run in a process group of its own."""
        prefix = [sys.executable, "-m", "mergebench", "warm", "--"] if warm else []
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [*prefix, *self.command(*options)],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *options: str, warm: bool = True) -> str:
        """Run to the end; returns what was printed."""
        process = self.start(*options, warm=warm)
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output[-6000:]
        return output

    def planned(self, *options: str) -> dict[str, int]:
        """Jobs per rule of a dry run; empty if there is nothing to do."""
        output = self.run("--dry-run", *options, warm=False)
        if "Nothing to be done" in output:
            return {}
        table = output.partition("Job stats:")[2].partition("total")[0]
        return {rule: int(count) for rule, count in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)}

    def kill_when(self, ready: Callable[[], bool], *options: str, timeout: float = 120) -> bool:
        """Start a run and SIGKILL all of it as soon as `ready`; returns whether it was still running then."""
        process = self.start(*options)
        deadline = time.monotonic() + timeout
        while process.poll() is None and not ready():
            assert time.monotonic() < deadline, "the moment to kill never came"
            time.sleep(0.002)
        killed = process.poll() is None
        if killed:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return killed
