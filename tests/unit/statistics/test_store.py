"""The statistics file: aliases, facts, and refusal of broken files."""

import pytest
import torch

from mergebench.errors import MergebenchError
from mergebench.merging.statistics.store import Statistics, save_statistics


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "gram.safetensors"
    save_statistics(path, {"q.weight": torch.eye(3)}, {"domain": "math", "tokens": 7}, {"k.weight": "q.weight"})
    return path


def test_an_alias_reads_the_shared_tensor(path):
    statistics = Statistics(path)
    assert statistics.names() == ["k.weight", "q.weight"]
    assert torch.equal(statistics.get("k.weight"), torch.eye(3))
    assert statistics.stored_name("k.weight") == "q.weight"


def test_what_was_not_measured_is_none(path):
    assert Statistics(path).get("norm.weight") is None


def test_the_file_says_what_was_measured(path):
    assert Statistics(path).facts == {"domain": "math", "tokens": 7}


def test_a_truncated_or_foreign_file_is_refused(path, tmp_path):
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(MergebenchError, match="not a complete statistics file"):
        Statistics(path)
    with pytest.raises(MergebenchError, match="make it again"):
        Statistics(tmp_path / "absent.safetensors")
