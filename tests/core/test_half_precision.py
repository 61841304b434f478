"""Half precision with a power-of-two scale: what it promises, over the whole range of float32."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from encyclo import half_precision

LARGEST = float(np.finfo(np.float32).max)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def vectors(draw) -> np.ndarray:
    """Vectors whose values span float32's whole range, or lie within one random order of magnitude."""
    shape = draw(array_shapes(min_dims=1, max_dims=3, max_side=6))
    if draw(st.booleans()):
        return draw(arrays(np.float32, shape, elements=finite))
    exponent = draw(st.integers(-140, 127))
    unit = draw(arrays(np.float32, shape, elements=st.floats(-1, 1, width=32)))
    return np.ldexp(unit, exponent).astype(np.float32)


def round_trip(values: np.ndarray) -> np.ndarray:
    return half_precision.decode(*half_precision.encode(values))


@given(vectors())
@example(np.array([LARGEST, -LARGEST], np.float32))
@example(np.array([3e38, 1.0], np.float32))
@example(np.array([1e-45, -3e-45], np.float32))
def test_round_trip_keeps_half_precision_of_each_value_and_of_the_largest(values):
    largest = np.abs(values.astype(np.float64)).max(axis=-1, keepdims=True)
    error = np.abs(round_trip(values).astype(np.float64) - values)
    # Relative precision while a value stays a normal half number, else a fixed share of the largest;
    # never finer than float32's own smallest step.
    allowed = np.maximum(2.0**-11 * np.abs(values), 2.0**-38 * largest)
    assert (error <= np.maximum(allowed, 2.0**-150)).all()


@given(vectors())
def test_scale_is_one_power_of_two_a_vector(values):
    halves, scale = half_precision.encode(values)
    assert halves.dtype == np.float16
    assert scale.dtype == np.float32
    assert scale.shape == values.shape[:-1]
    mantissa, _ = np.frexp(scale)
    assert (mantissa == 0.5).all()
    assert np.isfinite(halves).all()
    assert (np.abs(halves) < 2**15).all()


@given(vectors())
def test_decoded_values_are_encoded_exactly(values):
    once = round_trip(values)
    np.testing.assert_array_equal(round_trip(once), once)


@given(
    arrays(np.int32, st.integers(1, 8), elements=st.integers(-2047, 2047)),
    st.integers(-149, 112),
)
def test_values_of_eleven_bits_are_exact_at_every_magnitude(numbers, exponent):
    values = np.ldexp(numbers.astype(np.float64), exponent).astype(np.float32)
    np.testing.assert_array_equal(round_trip(values), values)


def test_gemma_sized_outlier_beside_small_values():
    values = np.array([123456.0, 1.0, -0.03125, 1e-3], np.float32)
    assert values.max() > np.finfo(np.float16).max
    np.testing.assert_allclose(round_trip(values), values, rtol=2.0**-11)


def test_each_vector_has_its_own_scale():
    values = np.array([[[1e30, 1e29]], [[1e-30, 1e-31]]], np.float32)
    halves, scale = half_precision.encode(values)
    assert scale.shape == (2, 1)
    assert scale[0, 0] > 1e20
    assert scale[1, 0] < 1e-20
    np.testing.assert_allclose(half_precision.decode(halves, scale), values, rtol=2.0**-11)


def test_zeros_get_scale_one():
    halves, scale = half_precision.encode(np.zeros((2, 3, 4), np.float32))
    assert (scale == 1).all()
    assert not halves.any()


def test_float32_largest_number_stays_finite():
    values = np.array([LARGEST, -LARGEST, 1.0], np.float32)
    assert np.isfinite(round_trip(values)).all()
    np.testing.assert_allclose(round_trip(values)[:2], values[:2], rtol=2.0**-11)


def test_smallest_subnormal_survives():
    values = np.array([np.finfo(np.float32).smallest_subnormal, 0.0], np.float32)
    np.testing.assert_array_equal(round_trip(values), values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused(bad):
    values = np.ones((2, 3), np.float32)
    values[1, 2] = bad
    with pytest.raises(ValueError, match="infinite or NaN"):
        half_precision.encode(values)


def test_encode_leaves_its_argument_alone():
    values = np.array([70000.0, 3.0], np.float32)
    before = values.copy()
    halves, scale = half_precision.encode(values)
    kept = halves.copy()
    half_precision.decode(halves, scale)
    np.testing.assert_array_equal(values, before)
    np.testing.assert_array_equal(halves, kept)
