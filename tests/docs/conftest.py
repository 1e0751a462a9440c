"""Copies of the tree in which commands run as they are printed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dag.campaign import Campaign


class Copy:
    """A copy of the workflow and the shell in which a reader would use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = Campaign.create(folder).folder

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run one line in the copy, with this environment's programs and the copy's package."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "MERGEBENCH"))}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    def output(self, command: str) -> str:
        """What a command prints; it must succeed."""
        done = self.shell(command)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """One copy for all pages. Tests must not change its sources."""
    return Copy(tmp_path_factory.mktemp("docs") / "copy")
