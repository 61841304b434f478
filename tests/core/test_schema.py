"""A part's checksum and joining."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from encyclo import half_precision
from encyclo.schema import NO_SPAN, Part


def make_part(rows: int = 4, layers: int = 2, hidden: int = 3, first: int = 0) -> Part:
    generator = np.random.default_rng(first)
    activations, scale = half_precision.encode(
        generator.normal(size=(rows, layers, hidden)).astype(np.float32) * 1e5
    )
    return Part(
        activations=activations,
        scale=scale,
        concept=np.arange(first, first + rows, dtype=np.int32),
        stage=np.ones(rows, np.int8),
        family=[f"family {i % 2}" for i in range(rows)],
        prompt=[f"A prompt about Größe 数 {first + i}" for i in range(rows)],
        span=np.array([(2, 5), NO_SPAN] * rows, np.int32)[:rows],
    )


def changed(part: Part, name: str) -> Part:
    """Return the part with the smallest change of one field."""
    value = getattr(part, name)
    if isinstance(value, list):
        return dataclasses.replace(part, **{name: [*value[:-1], value[-1] + " "]})
    copy = value.copy()
    copy.flat[-1] = -copy.flat[-1] + 1
    return dataclasses.replace(part, **{name: copy})


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Part)])
def test_checksum_changes_with_every_field(name):
    part = make_part()
    assert changed(part, name).checksum() != part.checksum()


def test_checksum_is_of_content_not_of_the_object():
    assert make_part().checksum() == make_part().checksum()


@pytest.mark.parametrize(
    "name", [f.name for f in dataclasses.fields(Part) if f.name not in {"family", "prompt"}]
)
def test_checksum_does_not_depend_on_memory_layout(name):
    part = make_part()
    value = getattr(part, name)
    spread = np.repeat(value, 2, axis=-1)[..., ::2]  # every second element of a larger array
    assert not spread.flags.c_contiguous
    assert dataclasses.replace(part, **{name: spread}).checksum() == part.checksum()
    fortran = np.asfortranarray(value)
    assert dataclasses.replace(part, **{name: fortran}).checksum() == part.checksum()


def test_checksum_tells_shapes_and_types_apart():
    part = make_part(rows=4, layers=2, hidden=3)
    reshaped = dataclasses.replace(part, activations=part.activations.reshape(4, 3, 2))
    assert reshaped.checksum() != part.checksum()
    zeros = dataclasses.replace(part, concept=np.zeros(4, np.int32))
    as_unsigned = dataclasses.replace(part, concept=np.zeros(4, np.uint32))
    assert zeros.checksum() != as_unsigned.checksum()


def test_checksum_keeps_neighbouring_texts_apart():
    part = make_part(rows=2)
    one = dataclasses.replace(part, prompt=["ab", "c"])
    other = dataclasses.replace(part, prompt=["a", "bc"])
    assert one.checksum() != other.checksum()


def test_checksum_changes_with_the_order_of_rows():
    part = make_part(rows=2)
    turned = Part(
        **{field.name: getattr(part, field.name)[::-1] for field in dataclasses.fields(Part)},
    )
    assert turned.checksum() != part.checksum()


def test_an_empty_part_has_a_checksum_of_its_own():
    assert len(make_part(rows=0)) == 0
    assert make_part(rows=0).checksum() != make_part(rows=1).checksum()
    assert make_part(rows=0, hidden=3).checksum() != make_part(rows=0, hidden=4).checksum()


def test_join_puts_rows_one_after_another():
    first, second = make_part(rows=3), make_part(rows=2, first=10)
    joined = Part.join([first, second])
    assert len(joined) == 5
    assert joined.concept.tolist() == [0, 1, 2, 10, 11]
    assert joined.prompt == first.prompt + second.prompt
    assert joined.family == first.family + second.family
    np.testing.assert_array_equal(joined.values()[3:], second.values())
    np.testing.assert_array_equal(joined.span[:3], first.span)
    for field in dataclasses.fields(Part):
        if field.name not in {"family", "prompt"}:
            assert getattr(joined, field.name).dtype == getattr(first, field.name).dtype


def test_join_leaves_the_parts_alone():
    first, second = make_part(rows=3), make_part(rows=2, first=10)
    before = first.checksum(), second.checksum()
    Part.join([first, second])
    assert (first.checksum(), second.checksum()) == before


def test_join_of_one_part_is_that_part():
    assert Part.join([make_part()]).checksum() == make_part().checksum()


def test_values_are_decoded_with_each_rows_own_scale():
    part = make_part()
    expected = part.activations.astype(np.float64) * part.scale[..., None]
    np.testing.assert_array_equal(part.values(), expected.astype(np.float32))
    assert np.abs(part.values()).max() > np.finfo(np.float16).max
