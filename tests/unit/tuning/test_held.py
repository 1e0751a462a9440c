"""A direction is held once for all of its scales, in memory as far as it may and in a file beyond that."""

import pytest
import torch

from mergebench.tuning.held import hold

TENSORS = {"a": torch.randn(3, 5), "b": torch.zeros(0), "c": torch.randn(7), "d": torch.randn(2, 2, 2)}


@pytest.mark.parametrize("budget", [0, 61, 100, 10_000])
def test_what_comes_back_is_what_was_given_whatever_the_budget(tmp_path, budget):
    with hold(TENSORS.items(), tmp_path, budget=budget) as direction:
        for _ in range(2):
            assert sorted(direction) == sorted(TENSORS)
            assert all(torch.equal(direction[name], tensor) and direction[name].shape == tensor.shape for name, tensor in TENSORS.items())
        assert direction.in_memory <= budget
        assert direction.in_memory + direction.on_disk == sum(4 * tensor.numel() for tensor in TENSORS.values())
        assert (tmp_path / "direction.f32").exists() == (direction.on_disk > 0)
    assert not list(tmp_path.iterdir())


def test_writing_into_what_was_read_changes_nothing(tmp_path):
    with hold(TENSORS.items(), tmp_path, budget=0) as direction:
        direction["a"].fill_(1.0)
        assert torch.equal(direction["a"], TENSORS["a"])


def test_a_failed_computation_leaves_no_file(tmp_path):
    def broken():
        yield "a", TENSORS["a"]
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        hold(broken(), tmp_path, budget=0)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_job_left_is_overwritten(tmp_path):
    (tmp_path / "direction.f32").write_bytes(b"x" * 1000)
    with hold(TENSORS.items(), tmp_path, budget=0) as direction:
        assert (tmp_path / "direction.f32").stat().st_size == direction.on_disk
