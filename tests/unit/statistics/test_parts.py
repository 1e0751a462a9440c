"""Parts of a statistic: complete or absent, of this very job, and joined into the file that was asked for."""

import pytest
import torch

from mergebench.checkpoints.tensorwriter import save_tensors
from mergebench.errors import MergebenchError
from mergebench.merging.statistics.parts import HEADER, Parts
from mergebench.merging.statistics.store import Statistics, save_statistics

TENSORS = {
    "a.weight": torch.randn(3, 5),
    "b.bits": torch.tensor([1, 0, 255], dtype=torch.uint8),
    "c.weight": torch.randn(4, 4).bfloat16(),
    "d.empty": torch.zeros(0, 3),
    "e.scalar": torch.tensor(2.5, dtype=torch.float64),
}


def begun(folder, key="k" * 64):
    parts = Parts(folder, key)
    parts.begin()
    return parts


def test_a_part_is_found_by_the_next_attempt(tmp_path):
    begun(tmp_path).save("layer.000", TENSORS, {"rows": 3})
    again = begun(tmp_path)
    assert again.has("layer.000")
    assert not again.has("layer.001")
    assert again.facts("layer.000") == {"rows": 3}
    assert torch.equal(again.tensors("layer.000").tensor("a.weight"), TENSORS["a.weight"])


def test_parts_of_another_key_are_removed(tmp_path):
    begun(tmp_path).save("unit", TENSORS)
    assert not begun(tmp_path, "other" * 10).has("unit")
    assert not list(tmp_path.rglob("*.part"))


def test_a_part_that_says_another_key_is_not_believed(tmp_path):
    """Keys that begin alike share a folder."""
    begun(tmp_path, "k" * 16 + "1").save("unit", TENSORS)
    assert not begun(tmp_path, "k" * 16 + "2").has("unit")


@pytest.mark.parametrize("cut", [1, 40, 10_000])
def test_a_truncated_part_is_as_absent(tmp_path, cut):
    parts = begun(tmp_path)
    parts.save("unit", TENSORS)
    path = next(tmp_path.rglob("*.part"))
    path.write_bytes(path.read_bytes()[:-cut])
    assert not parts.has("unit")


def test_a_foreign_file_is_as_absent(tmp_path):
    parts = begun(tmp_path)
    save_tensors(parts.folder / "unit.part", TENSORS, {HEADER: "[1]"})
    assert not parts.has("unit")


def test_a_failed_writing_leaves_what_was_there(tmp_path):
    parts = begun(tmp_path)
    parts.checkpoint("unit", {"x": torch.ones(2)}, {"rows": 1})
    with pytest.raises(KeyError):
        parts.checkpoint("unit", {"x": torch.ones(2, dtype=torch.complex64)}, {"rows": 2})
    assert parts.resume("unit")[1] == {"rows": 1}
    assert not list(tmp_path.rglob("*.tmp-*"))


def test_a_finished_unit_drops_its_states_and_no_others(tmp_path):
    parts = begun(tmp_path)
    for name in ("unit", "unit/3", "unit.1", "unit.1/3"):
        parts.checkpoint(name, {"x": torch.ones(2)}, {})
    parts.save("unit", {"x": torch.ones(2)})
    assert [name for name in ("unit", "unit/3", "unit.1", "unit.1/3") if parts.resume(name)] == ["unit.1", "unit.1/3"]


def test_joined_parts_are_the_file_of_all_tensors(tmp_path):
    parts = begun(tmp_path)
    names = sorted(TENSORS)
    parts.save("first", {name: TENSORS[name] for name in names[2:]})
    parts.save("second", {name: TENSORS[name] for name in names[:2]})
    facts = {"kind": "fisher", "domain": "math"}
    assert parts.join(tmp_path / "joined", ["first", "second"], facts, {"f.weight": "a.weight"}) == len(names)
    save_statistics(tmp_path / "at once", TENSORS, facts, {"f.weight": "a.weight"})
    assert (tmp_path / "joined").read_bytes() == (tmp_path / "at once").read_bytes()
    statistics = Statistics(tmp_path / "joined")
    assert statistics.facts == facts
    for name, tensor in TENSORS.items():
        assert torch.equal(statistics.get(name), tensor)


def test_a_tensor_in_two_parts_and_a_missing_part_are_refused(tmp_path):
    parts = begun(tmp_path)
    for unit in ("first", "second"):
        parts.save(unit, {"x": torch.ones(2)})
    with pytest.raises(MergebenchError, match="a tensor in two parts"):
        parts.join(tmp_path / "joined", ["first", "second"], {}, {})
    with pytest.raises(MergebenchError, match="no finished part 'third'"):
        parts.join(tmp_path / "joined", ["third"], {}, {})
