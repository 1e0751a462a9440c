"""The scripts of benchmarks/ start: none is in the way of Python's own modules, as one named like them would be."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / "benchmarks").glob("*.py") if "argparse" in path.read_text())
PROBE = """
import runpy, sys
sys.path[0] = sys.argv[1]
try:
    runpy.run_path(sys.argv[2], run_name="probed")
finally:
    import statistics
    assert hasattr(statistics, "median"), statistics.__file__
"""


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_is_imported_with_the_modules_that_it_means(name):
    folder = ROOT / "benchmarks"
    done = subprocess.run([sys.executable, "-c", PROBE, folder, folder / name], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
