"""Masks as bits: what goes in comes out, in an eighth of the bytes."""

import numpy as np
import pytest
import torch

from mergebench.checkpoints.tensorfile import TensorFile
from mergebench.merging.statistics.packing import pack, packed_size, unpack, unpacked
from mergebench.merging.statistics.parts import Parts
from mergebench.merging.statistics.store import Statistics, save_statistics

SHAPES = [(), (1,), (8,), (13,), (3, 5), (0,), (64, 33)]


def mask(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.3


@pytest.mark.parametrize("shape", SHAPES)
def test_bits_come_back(shape):
    given = mask(shape)
    packed = pack(given.numpy())
    assert packed.dtype == np.uint8
    assert packed.size == packed_size(given.numel())
    assert torch.equal(unpacked(packed, shape), given)


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 1), (3, 11), (8, 16), (95, 100), (100, 100)])
def test_any_piece_comes_back_by_itself(start, stop):
    given = mask((100,)).numpy()
    assert unpack(pack(given), start, stop).tolist() == given[start:stop].astype(int).tolist()


@pytest.mark.parametrize("through_parts", [False, True])
def test_a_file_of_masks_reads_as_masks(tmp_path, through_parts):
    masks = {f"t{number}": mask(shape, number) for number, shape in enumerate(SHAPES)}
    path = tmp_path / "mask.safetensors"
    if through_parts:
        parts = Parts(tmp_path / "state", "k" * 64)
        parts.begin()
        parts.save("one", masks)
        parts.join(path, ["one"], {"kind": "mask"}, {})
    else:
        save_statistics(path, masks, {"kind": "mask"})
    stored = Statistics(path)
    assert stored.facts == {"kind": "mask"}
    for name, given in masks.items():
        found = stored.get(name)
        assert found.dtype == torch.bool
        assert torch.equal(found, given)
        assert stored.values(name, 0, given.numel() + 5).tolist() == given.flatten().int().tolist()
        assert stored.values(name, 1, 4).tolist() == given.flatten()[1:4].int().tolist()
    assert sum(info.size for info in TensorFile(path).tensors.values()) == sum(packed_size(given.numel()) for given in masks.values())


def test_other_statistics_are_stored_as_they_are(tmp_path):
    path = tmp_path / "fisher.safetensors"
    save_statistics(path, {"w": torch.arange(6.0).view(2, 3), "m": torch.tensor([True])}, {})
    assert torch.equal(Statistics(path).get("w"), torch.arange(6.0).view(2, 3))
