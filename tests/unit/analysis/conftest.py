"""Fixtures of the analysis tests."""

from pathlib import Path

import pytest

from tests.unit.analysis import task_vectors
from tests.unit.analysis.synthetic import Campaign


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    """An empty campaign of two bases and three methods; call `write()` to fill it with all but sums over task vectors."""
    return Campaign(tmp_path)


@pytest.fixture(scope="session")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A filled campaign that tests only read."""
    filled = Campaign(tmp_path_factory.mktemp("complete")).write()
    for base in filled.bases:
        task_vectors.written(filled.root, base, task_vectors.model())
    return filled
