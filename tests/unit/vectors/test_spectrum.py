"""Exact quantiles against a sort."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mergebench.errors import MergebenchError
from mergebench.vectors import spectrum as module
from mergebench.vectors.spectrum import Spectrum

Parts = dict[str, np.ndarray]


def walk(parts: Parts):
    return lambda: iter(parts.items())


def kept(values: np.ndarray, found) -> np.ndarray:
    magnitude = np.abs(values)
    return magnitude > np.float32(found.value) if found.strict else magnitude >= np.float32(found.value)


def check(values: np.ndarray, density: float, found, ties: str) -> None:
    """The kept set is the top of a sort: of the requested size up to equal magnitudes, without zeros."""
    order = np.sort(np.abs(values))[::-1]
    wanted = min(round(density * values.size), int(np.count_nonzero(values)))
    mask = kept(values, found) & (values != 0)
    assert found.kept == mask.sum()
    assert found.total == values.size
    if ties == "all":
        expected = (np.abs(values) >= order[wanted - 1]) if wanted else np.zeros(values.shape, bool)
        np.testing.assert_array_equal(mask, expected)
    else:
        assert mask.sum() <= wanted
        if wanted and (wanted == len(order) or order[wanted] < order[wanted - 1]):
            assert mask.sum() == wanted


floats = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
# Few distinct values, as in differences of bfloat16 weights: many entries are equal, or zero.
coarse = st.sampled_from([0.0, -0.0, 0.5, -0.5, 0.25, 1e-30, -1e-30, 3.0]).map(np.float32)
arrays = hnp.arrays(np.float32, st.integers(0, 40), elements=floats) | hnp.arrays(np.float32, st.integers(0, 40), elements=coarse)
some_parts = st.dictionaries(st.sampled_from("abcd"), arrays, min_size=1)
ties_rules = st.sampled_from(["all", "strict"])


@settings(max_examples=150, deadline=None)
@given(parts=some_parts, density=st.floats(0, 1), ties=ties_rules)
def test_thresholds_are_those_of_a_sort(parts: Parts, density: float, ties: str) -> None:
    found = Spectrum.measure(walk(parts), densities=(density,)).threshold(density, ties)
    check(np.concatenate(list(parts.values())), density, found, ties)


@settings(max_examples=75, deadline=None)
@given(parts=some_parts, density=st.floats(0, 1), ties=ties_rules, data=st.data())
def test_thresholds_over_some_tensors(parts: Parts, density: float, ties: str, data) -> None:
    names = data.draw(st.sets(st.sampled_from(sorted(parts)), min_size=1))
    spectrum = Spectrum.measure(walk(parts), densities=())
    found = spectrum.threshold(density, ties, names=names, stream=walk(parts))
    check(np.concatenate([parts[name] for name in sorted(names)]), density, found, ties)


@pytest.mark.parametrize("ties", ["all", "strict"])
def test_a_large_vector_in_chunks(monkeypatch: pytest.MonkeyPatch, ties: str) -> None:
    monkeypatch.setattr(module, "CHUNK", 1000)
    random = np.random.default_rng(0)
    parts = {name: random.standard_normal((61, 97)).astype(np.float32) for name in "abc"}
    spectrum = Spectrum.measure(walk(parts))
    for density in (0.01, 0.1, 0.2, 0.5, 0.95):
        found = spectrum.threshold(density, ties)
        assert found.kept == round(density * found.total)
        check(np.concatenate([part.ravel() for part in parts.values()]), density, found, ties)


def test_facts_of_the_vector() -> None:
    parts = {"a": np.array([3.0, 0.0, -4.0], np.float32), "b": np.array([[0.0]], np.float32)}
    spectrum = Spectrum.measure(walk(parts))
    assert spectrum.norm == 5.0
    assert spectrum.zero_fraction == 0.5
    assert spectrum.tensor_norms() == {"a": 5.0, "b": 0.0}
    assert spectrum.maxima.tolist() == [4.0, 0.0]


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    parts = {name: random.standard_normal(500).astype(np.float32) for name in "ab"}
    spectrum = Spectrum.measure(walk(parts), origin={"base": "x"})
    spectrum.save(tmp_path / "one.npz")
    loaded = Spectrum.load(tmp_path / "one.npz")
    loaded.save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert loaded.origin == {"base": "x"}
    for density in (0.05, 0.2, 0.9):
        assert loaded.threshold(density) == spectrum.threshold(density)


def test_a_density_that_was_not_refined_needs_the_vector() -> None:
    parts = {"a": np.linspace(0, 1, 1000, dtype=np.float32)}
    spectrum = Spectrum.measure(walk(parts))
    with pytest.raises(MergebenchError, match=r"density 0\.1234"):
        spectrum.threshold(0.1234)
    assert spectrum.threshold(0.1234, stream=walk(parts)).kept == 123


@pytest.mark.parametrize("density", [-0.1, 1.1])
def test_a_density_is_a_fraction(density: float) -> None:
    with pytest.raises(MergebenchError, match="between 0 and 1"):
        Spectrum.measure(walk({"a": np.ones(3, np.float32)})).threshold(density)


@pytest.mark.parametrize("damage", ["truncated", "other", "missing"])
def test_a_broken_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "spectrum.npz"
    Spectrum.measure(walk({"a": np.ones(3, np.float32)})).save(path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "other":
        np.savez(path, names=np.zeros(3))
    else:
        path.unlink()
    with pytest.raises(MergebenchError, match="not a readable spectrum"):
        Spectrum.load(path)
