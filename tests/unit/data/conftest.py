import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mergebench import catalogue
from mergebench.artifacts import Job
from mergebench.data.records import Row
from mergebench.data.sources import local
from tests.unit.data import published


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a few hand-written records of every dataset. Tests must not write into it."""
    return published.write(tmp_path_factory.mktemp("published"))


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """The same for tests that damage it."""
    return published.write(tmp_path / "published")


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """The folder of the real files."""
    root = os.environ.get("MERGEBENCH_REAL_DATA", "")
    if not Path(root).is_dir() or not root:
        pytest.skip("MERGEBENCH_REAL_DATA does not name a folder with the benchmarks' real files")
    return Path(root)


@pytest.fixture(scope="session")
def rows(folder: Path) -> Callable[[str], list[Row]]:
    """Rows of a dataset of the miniature data folder."""
    return lambda dataset: local.load(dataset, catalogue.datasets()[dataset], folder, seed=0).rows


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    """A job with the named outputs."""

    def make(outputs: dict[str, str], **spec: Any) -> Job:
        paths = {name: tmp_path / "out" / file for name, file in outputs.items()}
        return Job("prepare", {"seed": 0, **spec}, {}, paths, tmp_path / "state")

    return make
