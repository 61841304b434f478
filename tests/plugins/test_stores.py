"""What both built-in stores do: parts come back as written, and finalising is complete or has no effect."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from encyclo import half_precision
from encyclo.errors import DamagedError, PluginError, StoreError
from encyclo.plugins.manager import Plugins
from encyclo.schema import FORMAT, NO_SPAN, Attributes, Book, ConceptTable, Part, Schema, SignatureTable

LAYERS, HIDDEN, CONCEPTS = (-2, -1), 16, 3
SCHEMA = Schema(LAYERS, (3, 4), HIDDEN)
TEXTS = [
    "A dog.",
    "Größe 数 🐕",
    "two\nlines\tand “quotes”",
    "e\u0301 \u200d \u202e",
    " blanks ",
    "x" * 10_000,
]


def make_part(rows: int = 6, first: int = 0) -> Part:
    generator = np.random.default_rng(first)
    values = 1e5 * generator.normal(size=(rows, len(LAYERS), HIDDEN)).astype(np.float32)
    activations, scale = half_precision.encode(values)
    return Part(
        activations=activations,
        scale=scale,
        concept=np.arange(first, first + rows, dtype=np.int32) % CONCEPTS,
        stage=np.ones(rows, np.int8),
        family=[f"noun.größe.{i % 4}" for i in range(rows)],
        prompt=[f"{TEXTS[i % len(TEXTS)]}{first + i}" for i in range(rows)],
        span=np.array([(2, 5), NO_SPAN] * rows, np.int32).reshape(-1, 2)[:rows],
    )


def make_book(model: str = "gemma") -> Book:
    generator = np.random.default_rng(1)
    shape = (CONCEPTS, len(LAYERS), HIDDEN)
    confidence = np.array([0.9, np.nan, 0.1], np.float32)
    return Book(
        Attributes(model, "ab" * 32, LAYERS, (3, 4), "span", HIDDEN, 1, "run-1", "2025-01-01T00:00:00+00:00",
                   "0.1.0", '{"seed": 0, "naïve": true}'),
        ConceptTable(
            id=["c0", "c1", "c2"],
            name=["dog", "naïveté", "水"],
            definition=["a tame animal", "", "what rivers hold"],
            category=["animals", "emotions", ""],
            stage=np.array([1, 0, 1], np.int32),
            n_samples=np.array([2, 2, 2], np.int32),
            confidence=confidence,
            confidence_low=confidence - np.float32(0.1),
            confidence_high=confidence + np.float32(0.1),
            converged=np.array([True, False, True]),
            settled=np.array([False, False, True]),
        ),
        SignatureTable(
            generator.normal(size=shape).astype(np.float32),
            generator.uniform(size=shape).astype(np.float32),
            np.array([2, 0, 2], np.int32),
        ),
    )  # fmt: skip


FILES = {"hdf5": ("encyclopedia.h5", ".h5"), "zarr": ("encyclopedia.zarr", ".zarr.zip")}


@pytest.fixture(params=sorted(FILES))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def store(kind: str, tmp_path: Path):
    (tmp_path / "parts").mkdir()
    return Plugins().call("store_activations", kind, location=tmp_path, schema=SCHEMA)


@pytest.fixture
def part_file(kind: str, store):
    """name -> the file that holds a part."""
    return lambda name: store.location / "parts" / f"{name}{FILES[kind][1]}"


@pytest.fixture
def finished(kind: str, store):
    store.write_part("a", make_part())
    store.write_part("b", make_part(rows=4, first=10))
    assert store.finalise(["b", "a"], make_book()) == store.location / FILES[kind][0]
    return store


def assert_same(found: object, expected: object) -> None:
    """Compare two dataclasses field by field: values, types of numbers, NaN equal to NaN."""
    for field in dataclasses.fields(expected):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(theirs, np.ndarray):
            assert ours.dtype == theirs.dtype, field.name
            np.testing.assert_array_equal(ours, theirs, err_msg=field.name)
        else:
            assert ours == theirs, field.name


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("rows", [0, 1, 6, 600])
def test_a_part_comes_back_as_it_was_written(store, part_file, rows):
    part = make_part(rows)
    store.write_part("a", part)
    assert_same(store.read_part("a"), part)
    assert store.read_part("a").checksum() == part.checksum()
    assert [store.location / name for name in listing(store.location)] == [part_file("a")]


def test_writing_a_part_again_replaces_it(store):
    store.write_part("a", make_part())
    store.write_part("a", make_part(rows=2, first=50))
    assert store.read_part("a").checksum() == make_part(rows=2, first=50).checksum()


def test_a_part_that_cannot_be_written_leaves_nothing(store):
    broken = dataclasses.replace(make_part(), prompt=[None] * 6)
    with pytest.raises(PluginError, match="TypeError"):
        store.write_part("a", broken)
    assert listing(store.location) == []
    os.rmdir(store.location / "parts")
    with pytest.raises(StoreError, match=r"Can't write .*parts/a\."):
        store.write_part("a", make_part())


def test_the_reader_gives_back_the_book_and_any_rows(finished):
    joined = Part.join([make_part(rows=4, first=10), make_part()])
    reader = finished.open()
    for table in ("attributes", "concepts", "signatures"):
        assert_same(getattr(reader.book, table), getattr(make_book(), table))
    assert reader.book.attributes.format == FORMAT
    np.testing.assert_array_equal(reader.owners(), joined.concept)
    assert reader.samples(slice(None)).checksum() == joined.checksum()
    some = reader.samples(np.array([1, 4, 9]))
    assert some.prompt == [joined.prompt[i] for i in (1, 4, 9)]
    np.testing.assert_array_equal(some.activations, joined.activations[[1, 4, 9]])
    assert len(reader.samples(np.array([], np.int64))) == 0
    reader.close()


def test_finalising_again_replaces_the_file(finished, kind):
    finished.finalise(["a"], make_book(model="another"))
    reader = finished.open()
    assert reader.book.attributes.model == "another"
    assert len(reader.owners()) == 6
    reader.close()
    assert sorted(path.name for path in finished.location.iterdir()) == [FILES[kind][0], "parts"]


def test_the_old_file_is_intact_when_finalising_fails_half_way(finished, kind, part_file):
    before = finished.open().samples(slice(None)).checksum()
    damaged = part_file("b")
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    with pytest.raises(DamagedError, match=r"parts/b\."):
        finished.finalise(["a", "b"], make_book("new"))
    with pytest.raises(StoreError, match=r"parts/gone\."):
        finished.finalise(["a", "gone"], make_book("new"))
    assert finished.open().samples(slice(None)).checksum() == before
    assert sorted(path.name for path in finished.location.iterdir()) == [FILES[kind][0], "parts"]


@pytest.mark.parametrize("keep", [0, 7, 100, 3000, -1])
def test_a_cut_part_is_named_as_damaged(store, part_file, keep):
    store.write_part("a", make_part())
    path = part_file("a")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedError, match=r"parts/a\."):
        store.read_part("a")


def test_changed_values_change_the_checksum(store, part_file):
    part = make_part()
    store.write_part("a", part)
    path = part_file("a")
    content = bytearray(path.read_bytes())
    place = content.index(part.activations.tobytes())  # in one piece, row after row
    for offset in range(0, part.activations.nbytes, 9):
        changed = content.copy()
        changed[place + offset] ^= 4
        path.write_bytes(changed)
        assert store.read_part("a").checksum() != part.checksum()


def test_a_missing_part_or_encyclopedia_is_named(store):
    with pytest.raises(StoreError, match=r"parts/a\."):
        store.read_part("a")
    with pytest.raises(StoreError, match=r"encyclopedia\..*run"):
        store.open()
