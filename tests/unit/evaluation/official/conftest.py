"""The authors' published result files, where they are, and files of their layout with made-up numbers."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def published_file() -> Callable[[str], Path]:
    """A function from a published file's name to its path; MERGEBENCH_PUBLISHED names the folder, else one is looked for by the data."""
    folder = os.environ.get("MERGEBENCH_PUBLISHED", "")
    data = os.environ.get("MERGEBENCH_REAL_DATA", "")
    if not folder and data:
        folder = str(Path(data).parent / "reference/published")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MERGEBENCH_PUBLISHED does not name a folder with the authors' published result files")

    def find(name: str) -> Path:
        path = Path(folder) / name
        if not path.is_file():
            pytest.skip(f"{path} is not there")
        return path

    return find


@pytest.fixture
def published(tmp_path: Path) -> Callable[[str, dict[str, Any]], Path]:
    """Write a document of a published layout."""

    def write(name: str, document: dict[str, Any]) -> Path:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(document))
        return path

    return write
