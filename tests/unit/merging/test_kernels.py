"""Conversions, rounding and counting in the kernels, against torch and numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mergebench.kernels.bits import INFINITY, OVERFLOW
from mergebench.kernels.blocks import LOAD, STORE, SUBTRACT, add_up, moved, sign_conflicts
from mergebench.kernels.histogram import COARSE_BINS, LANES, collect, count_equal, count_magnitudes, tally

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
EVERY = np.arange(1 << 16, dtype=np.uint16)

finite = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
blocks = hnp.arrays(np.float32, st.integers(1, 300), elements=finite)


@pytest.mark.parametrize("form", ["BF16", "F16"])
def test_every_number_of_16_bits_is_loaded(form: str) -> None:
    expected = torch.from_numpy(EVERY.view(np.int16)).view(DTYPES[form]).float().numpy()
    out = np.empty(EVERY.size, np.float32)
    assert LOAD[form](EVERY, out) >= INFINITY
    sound = np.isfinite(expected)
    np.testing.assert_array_equal(out[sound].view(np.uint32), expected[sound].view(np.uint32))
    assert not np.isfinite(out[~sound]).any()
    assert LOAD[form](EVERY[sound], out[: sound.sum()]) < INFINITY


@pytest.mark.parametrize("form", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows_in_the_largest_magnitude(form: str, value: float) -> None:
    stored = torch.tensor([1.0, value, 2.0], dtype=DTYPES[form])
    values = stored.view(torch.int16).numpy().view(np.uint16) if stored.element_size() == 2 else stored.numpy()
    assert LOAD[form](values, np.empty(3, np.float32)) >= INFINITY
    assert SUBTRACT[form](values, np.ones(3, np.float32), np.empty(3, np.float32)) >= INFINITY


def neighbours(form: str) -> np.ndarray:
    """float32 numbers at, halfway between, and just beside the finite numbers of a 16-bit format."""
    values = torch.from_numpy(EVERY.view(np.int16)).view(DTYPES[form]).double().numpy()
    values = np.sort(values[np.isfinite(values)])
    halfway = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    exact = values.astype(np.float32)
    return np.concatenate([exact, halfway, np.nextafter(halfway, np.float32(np.inf)), np.nextafter(halfway, np.float32(-np.inf))])


@pytest.mark.parametrize("form", ["BF16", "F16"])
def test_rounding_is_to_nearest_even(form: str) -> None:
    numbers = neighbours(form)
    # Adding minus zero changes nothing, so that the rounding alone is seen.
    out = np.empty(numbers.size, np.uint16)
    assert STORE[form](numbers, np.full(numbers.size, -0.0, np.float32), 1.0, out) < OVERFLOW[form]
    expected = torch.from_numpy(numbers).to(DTYPES[form]).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("form", DTYPES)
def test_the_limit_of_overflow_is_exact(form: str) -> None:
    limit = np.array([OVERFLOW[form], OVERFLOW[form] - 1], np.uint32).view(np.float32)
    assert torch.isfinite(torch.from_numpy(limit).to(DTYPES[form])).tolist() == [False, True]


@settings(max_examples=60)
@given(base=blocks, scale=st.floats(-4, 4), form=st.sampled_from(list(DTYPES)), data=st.data())
def test_a_rounded_product_a_rounded_sum_a_rounding(base: np.ndarray, scale: float, form: str, data) -> None:
    direction = data.draw(hnp.arrays(np.float32, base.size, elements=finite))
    out = np.empty(base.size, np.uint16 if DTYPES[form].itemsize == 2 else np.dtype(f"f{DTYPES[form].itemsize}"))
    top = STORE[form](base, direction, scale, out)
    expected = (torch.from_numpy(base) + torch.from_numpy(direction) * scale).to(DTYPES[form])
    if torch.isfinite(expected).all():
        assert top < OVERFLOW[form]
        bits = expected.view(torch.int16).numpy().view(np.uint16) if out.dtype == np.uint16 else expected.numpy()
        np.testing.assert_array_equal(out.view(np.uint8), bits.view(np.uint8))
    else:
        assert top >= OVERFLOW[form]


@settings(max_examples=60)
@given(vectors=hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 300)), elements=st.floats(-9, 9, width=32)))
def test_sums_and_counts(vectors: np.ndarray) -> None:
    out, signs = np.empty(vectors.shape[1], np.float32), np.empty(vectors.shape[1], np.uint8)
    add_up(vectors, out)
    total = vectors[0]
    for vector in vectors[1:]:
        total = total + vector
    np.testing.assert_array_equal(out, total)
    assert sign_conflicts(vectors, signs) == ((vectors > 0).any(0) & (vectors < 0).any(0)).sum()
    count, squares = moved(out)
    assert count == np.count_nonzero(out)
    assert squares == pytest.approx(float((out.astype(np.float64) ** 2).sum()), rel=1e-12)


@settings(max_examples=60)
@given(vector=blocks, places=st.sets(st.integers(0, COARSE_BINS - 1), max_size=3))
def test_histograms(vector: np.ndarray, places: set[int]) -> None:
    bits = np.abs(vector).view(np.uint32)
    places = places | {int(bits[0] >> 16)}
    wanted = np.zeros(COARSE_BINS, np.uint8)
    wanted[list(places)] = 1
    counts, caught = np.zeros((LANES, COARSE_BINS), np.uint32), np.empty(vector.size + LANES, np.uint32)
    found = count_magnitudes(vector, counts, wanted, caught)
    np.testing.assert_array_equal(counts.sum(0), np.bincount(bits >> 16, minlength=COARSE_BINS))
    expected = bits[np.isin(bits >> 16, list(places))]
    np.testing.assert_array_equal(caught[:found], expected)
    assert collect(vector, wanted, caught) == found
    slots, fine = np.zeros(COARSE_BINS, np.int32), np.zeros((len(places), 1 << 16), np.int64)
    slots[sorted(places)] = range(len(places))
    tally(caught[:found], slots, fine)
    assert fine.sum() == found
    assert count_equal(vector, int(bits[0])) == (bits == bits[0]).sum() == fine[slots[bits[0] >> 16], bits[0] & 0xFFFF]
