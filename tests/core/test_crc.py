"""The crc32 of each vector: one sum a vector, and which rows differ from theirs."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encyclo import crc


def vectors(rows: int, layers: int, hidden: int) -> np.ndarray:
    bits = np.random.default_rng(rows).integers(0, 0x7800, (rows, layers, hidden), np.uint16)
    return bits.view(np.float16)


def test_each_vector_has_the_crc32_of_its_bytes():
    values = vectors(3, 2, 5)
    expected = [[zlib.crc32(values[row, layer].tobytes()) for layer in range(2)] for row in range(3)]
    assert crc.of(values).tolist() == expected
    assert crc.of(values).dtype == np.uint32


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 3, 0)])
def test_nothing_has_sums_and_differs_from_nothing(shape):
    values = np.empty(shape, np.float16)
    assert crc.of(values).shape == shape[:2]
    assert crc.differing(values, crc.of(values)).tolist() == []


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 600),
    layers=st.integers(1, 3),
    hidden=st.integers(1, 40),
    changes=st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 15)), max_size=4),
)
def test_exactly_the_changed_rows_differ(rows, layers, hidden, changes):
    values = vectors(rows, layers, hidden)
    sums, damaged = crc.of(values), values.copy()
    bits = damaged.view(np.uint16).reshape(-1)
    for place, bit in changes:
        bits[place % len(bits)] ^= 1 << bit
    changed = (damaged.view(np.uint16) != values.view(np.uint16)).any(axis=(1, 2))
    assert crc.differing(damaged, sums).tolist() == np.flatnonzero(changed).tolist()


def test_rows_that_changed_places_differ():
    values = vectors(700, 2, 6)
    swapped = values.copy()
    swapped[[10, 400]] = values[[400, 10]]
    assert crc.differing(swapped, crc.of(values)).tolist() == [10, 400]


def test_memory_may_have_gaps():
    values = vectors(600, 3, 8)
    assert crc.differing(values[:, 1:2], crc.of(values)[:, 1:2]).tolist() == []
    assert crc.differing(values[::-1], crc.of(values)[::-1]).tolist() == []


def test_sums_of_another_shape_are_refused():
    values = vectors(4, 2, 3)
    with pytest.raises(ValueError, match="don't match"):
        crc.differing(values, crc.of(values)[:3])


def test_sums_are_packed_as_text_and_back():
    sums = crc.of(vectors(5, 3, 4))
    np.testing.assert_array_equal(crc.unpack(crc.pack(sums), 3), sums)
    with pytest.raises(ValueError):
        crc.unpack(crc.pack(sums), 4)
    with pytest.raises(ValueError):
        crc.unpack("no base64!", 3)
