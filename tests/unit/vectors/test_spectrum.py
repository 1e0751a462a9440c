"""Exact quantiles against a sort."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.vectors import measure as module
from mergebench.vectors.measure import measure, refine, refine_tensor
from mergebench.vectors.spectrum import Cut, Spectrum
from tests.reference.pico import write_checkpoint

Parts = dict[str, np.ndarray]


def checkpoints(folder: Path, *vectors: Parts) -> tuple[Checkpoint, list[Checkpoint]]:
    """A base of zeros, and specialists that are their task vectors."""
    zeros = {name: torch.zeros(part.shape) for name, part in vectors[0].items()}
    base = Checkpoint(write_checkpoint(folder / "base", zeros))
    tensors = [{name: torch.from_numpy(part.copy()) for name, part in vector.items()} for vector in vectors]
    return base, [Checkpoint(write_checkpoint(folder / str(number), each)) for number, each in enumerate(tensors)]


def spectra(*vectors: Parts, densities: tuple[float, ...] = (), **options) -> list[Spectrum]:
    with tempfile.TemporaryDirectory() as folder:
        base, specialists = checkpoints(Path(folder), *vectors)
        return measure(base, specialists, sorted(vectors[0]), densities=[densities] * len(vectors), **options)


def flat(parts: Parts) -> np.ndarray:
    return np.concatenate([parts[name].ravel() for name in sorted(parts)])


def kept(values: np.ndarray, cut: Cut) -> np.ndarray:
    """What a cut keeps, in canonical order."""
    bits = np.abs(values).view(np.uint32)
    equal = bits == cut.limit - 1
    return (bits >= cut.limit) | (equal & (np.cumsum(equal) <= cut.spare))


def check(values: np.ndarray, wanted: int, cut: Cut, ties: str) -> None:
    """The kept set is the top of a sort: of the requested size up to equal magnitudes, without zeros."""
    order = np.sort(np.abs(values))[::-1]
    wanted = min(wanted, int(np.count_nonzero(values)))
    mask = kept(values, cut)
    assert not (mask & (values == 0)).any()
    assert cut.kept == mask.sum()
    assert cut.total == values.size
    at_least = np.abs(values) >= order[wanted - 1] if wanted else np.zeros(values.shape, bool)
    assert not (mask & ~at_least).any()
    if ties == "all":
        np.testing.assert_array_equal(mask, at_least)
    elif ties == "exact":
        assert mask.sum() == wanted
    else:
        assert mask.sum() <= wanted
        if wanted and (wanted == len(order) or order[wanted] < order[wanted - 1]):
            assert mask.sum() == wanted


floats = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
# Few distinct values, as in differences of bfloat16 weights: many entries are equal, or zero.
coarse = st.sampled_from([0.0, -0.0, 0.5, -0.5, 0.25, 1e-30, -1e-30, 1e-44, 3.0]).map(np.float32)
arrays = hnp.arrays(np.float32, st.integers(0, 40), elements=floats) | hnp.arrays(np.float32, st.integers(0, 40), elements=coarse)
some_parts = st.dictionaries(st.sampled_from("abcd"), arrays, min_size=1)
ties_rules = st.sampled_from(["all", "strict", "exact"])


@settings(max_examples=100)
@given(parts=some_parts, density=st.floats(0, 1), ties=ties_rules)
def test_thresholds_are_those_of_a_sort(parts: Parts, density: float, ties: str) -> None:
    (spectrum,) = spectra(parts, densities=(density,))
    wanted = round(density * spectrum.total)
    check(flat(parts), wanted, spectrum.cut(wanted, ties), ties)


@settings(max_examples=50)
@given(parts=some_parts, density=st.floats(0, 1), ties=ties_rules, data=st.data())
def test_thresholds_over_some_tensors(parts: Parts, density: float, ties: str, data) -> None:
    names = data.draw(st.sets(st.sampled_from(sorted(parts)), min_size=1))
    with tempfile.TemporaryDirectory() as folder:
        base, specialists = checkpoints(Path(folder), parts)
        found = measure(base, specialists, sorted(parts))
        scope = found[0].scope(names)
        wanted = round(density * found[0].entries(scope))
        place = found[0].bin(wanted, ties, scope)
        refine(base, specialists, found, [{(scope, place)} if place is not None else set()])
        values = flat({name: parts[name] for name in names})
        check(values, wanted, found[0].cut(wanted, ties, scope), ties)
        (name,) = sorted(names)[:1]
        scope = found[0].scope([name])
        wanted = round(density * parts[name].size)
        place = found[0].bin(wanted, ties, scope)
        (fine,) = refine_tensor(base, specialists, name, [set() if place is None else {place}])
        check(parts[name].ravel(), wanted, found[0].cut(wanted, ties, scope, fine), ties)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks, blocks and samples that cut small tensors often."""
    monkeypatch.setattr(module, "BLOCK", 1000)
    monkeypatch.setattr(module, "SAMPLE", 100)
    monkeypatch.setattr(module, "STRIDE", 300)
    monkeypatch.setattr(module, "MOST_BINS", 1000)
    monkeypatch.setattr("mergebench.vectors.walk.CHUNK", 2000)


def normal(*names: str, seed: int = 0) -> Parts:
    random = np.random.default_rng(seed)
    return {name: (10.0**place * random.standard_normal((61, 97))).astype(np.float32) for place, name in enumerate(names)}


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("ties", ["all", "strict", "exact"])
def test_several_vectors_in_chunks_by_threads(ties: str) -> None:
    vectors = [normal(*"abc", seed=1), normal(*"abc", seed=2)]
    densities = (0.01, 0.1, 0.2, 0.5, 0.95)
    for threads in (1, 3):
        for parts, spectrum in zip(vectors, spectra(*vectors, densities=densities, threads=threads), strict=True):
            for density in densities:
                wanted = round(density * spectrum.total)
                cut = spectrum.cut(wanted, ties)
                assert cut.kept == wanted
                check(flat(parts), wanted, cut, ties)


@pytest.mark.usefixtures("small_pieces")
def test_a_good_sample_spares_the_second_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_collect_chunk", lambda *_: pytest.fail("a second walk was needed"))
    (spectrum,) = spectra(normal("a"), densities=(0.2,))
    assert spectrum.cut(round(0.2 * spectrum.total)).kept == round(0.2 * spectrum.total)


@pytest.mark.usefixtures("small_pieces")
def test_a_sample_that_misleads_costs_a_second_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_expected_bins", lambda *_: {1})
    parts = normal(*"ab")
    (spectrum,) = spectra(parts, densities=(0.2,))
    check(flat(parts), round(0.2 * spectrum.total), spectrum.cut(round(0.2 * spectrum.total)), "all")


def test_facts_of_the_vector() -> None:
    parts = {"a": np.array([3.0, 0.0, -4.0], np.float32), "b": np.array([[0.0]], np.float32)}
    (spectrum,) = spectra(parts, densities=(0.25,))
    assert spectrum.norm == 5.0
    assert spectrum.zero_fraction == 0.5
    assert spectrum.tensor_norms() == {"a": 5.0, "b": 0.0}
    assert spectrum.maxima.tolist() == [4.0, 0.0]
    assert spectrum.cut(1).value == 4.0
    assert spectrum.cut(0).value == float("inf")


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    parts = {name: np.random.default_rng(1).standard_normal(500).astype(np.float32) for name in "ab"}
    (spectrum,) = spectra(parts, densities=(0.05, 0.2, 0.9), origins=[{"base": "x"}])
    spectrum.save(tmp_path / "one.npz")
    loaded = Spectrum.load(tmp_path / "one.npz")
    loaded.save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert loaded.origin == {"base": "x"}
    for wanted in (50, 200, 900):
        assert loaded.cut(wanted) == spectrum.cut(wanted)


def test_a_density_that_was_not_refined_is_refined_from_the_tensors_that_matter(tmp_path: Path) -> None:
    parts = {"large": np.linspace(1, 2, 1000, dtype=np.float32), "small": np.linspace(1e-6, 2e-6, 1000, dtype=np.float32)}
    base, specialists = checkpoints(tmp_path, parts)
    found = measure(base, specialists, sorted(parts))
    with pytest.raises(MergebenchError, match="not refined for the 123 largest entries"):
        found[0].cut(123)
    read: list[str] = []
    values = specialists[0].values
    specialists[0].values = lambda name, *place: read.append(name) or values(name, *place)  # type: ignore[method-assign]
    refine(base, specialists, found, [{(None, found[0].bin(123))}])
    assert found[0].cut(123).kept == 123
    assert set(read) == {"large"}


def test_a_tensor_that_was_not_measured_is_named() -> None:
    (spectrum,) = spectra({"a": np.ones(3, np.float32)})
    with pytest.raises(MergebenchError, match="no tensor 'b'"):
        spectrum.scope(["b"])


@pytest.mark.parametrize("damage", ["truncated", "other", "missing"])
def test_a_broken_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "spectrum.npz"
    spectra({"a": np.ones(3, np.float32)})[0].save(path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "other":
        np.savez(path, names=np.zeros(3))
    else:
        path.unlink()
    with pytest.raises(MergebenchError, match="not a readable spectrum"):
        Spectrum.load(path)
