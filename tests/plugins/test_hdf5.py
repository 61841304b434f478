"""The store hdf5: parts come back as written, and h5py alone reads the finished file."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from encyclo import codec
from encyclo.errors import DamagedError, StoreError
from encyclo.plugins import Plugins
from encyclo.schema import FORMAT, NO_SPAN, Attributes, Book, ConceptTable, Part, Schema, SignatureTable
from encyclo_hdf5.store import Hdf5Store

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
    activations, scale = codec.encode(values)
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


@pytest.fixture
def store(tmp_path: Path) -> Hdf5Store:
    (tmp_path / "parts").mkdir()
    return Hdf5Store(tmp_path, SCHEMA)


@pytest.fixture
def finished(store: Hdf5Store) -> Hdf5Store:
    store.write_part("a", make_part())
    store.write_part("b", make_part(rows=4, first=10))
    assert store.finalise(["b", "a"], make_book()) == store.location / "encyclopedia.h5"
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


def test_the_plugin_gives_this_store(tmp_path):
    store = Plugins().call("store_activations", "hdf5", location=tmp_path, schema=SCHEMA)
    assert (type(store), store.location, store.schema) == (Hdf5Store, tmp_path, SCHEMA)


@pytest.mark.parametrize("rows", [0, 1, 6, 600])
def test_a_part_comes_back_as_it_was_written(store, rows):
    part = make_part(rows)
    store.write_part("a", part)
    assert_same(store.read_part("a"), part)
    assert store.read_part("a").checksum() == part.checksum()
    assert listing(store.location) == ["parts/a.h5"]


def test_writing_a_part_again_replaces_it(store):
    store.write_part("a", make_part())
    store.write_part("a", make_part(rows=2, first=50))
    assert store.read_part("a").checksum() == make_part(rows=2, first=50).checksum()


def test_a_part_that_cannot_be_written_leaves_nothing(store):
    broken = dataclasses.replace(make_part(), prompt=[None] * 6)
    with pytest.raises(TypeError):
        store.write_part("a", broken)
    assert listing(store.location) == []
    os.rmdir(store.location / "parts")
    with pytest.raises(StoreError, match=r"Can't write .*a\.h5"):
        store.write_part("a", make_part())


def test_h5py_alone_reads_the_hierarchy(finished):
    text = h5py.string_dtype("utf-8")
    rows, signature = 10, (CONCEPTS, len(LAYERS), HIDDEN)
    designed = {
        "concepts": {
            **dict.fromkeys(["id", "name", "definition", "category"], (text, (CONCEPTS,))),
            **dict.fromkeys(["stage", "n_samples"], ("i4", (CONCEPTS,))),
            **dict.fromkeys(["confidence", "confidence_low", "confidence_high"], ("f4", (CONCEPTS,))),
            **dict.fromkeys(["converged", "settled"], ("?", (CONCEPTS,))),
        },
        "samples": {
            "activations": ("f2", (rows, len(LAYERS), HIDDEN)),
            "scale": ("f4", (rows, len(LAYERS))),
            "concept": ("i4", (rows,)),
            "stage": ("i1", (rows,)),
            "family": (text, (rows,)),
            "prompt": (text, (rows,)),
            "span": ("i4", (rows, 2)),
        },
        "signatures": {
            "mean": ("f4", signature),
            "variance": ("f4", signature),
            "count": ("i4", (CONCEPTS,)),
        },
    }
    with h5py.File(finished.location / "encyclopedia.h5", "r") as file:
        found = {g: {name: (data.dtype, data.shape) for name, data in file[g].items()} for g in file}
        strings = {
            data.name for g in file.values() for data in g.values() if h5py.check_string_dtype(data.dtype)
        }
        assert {h5py.check_string_dtype(file[name].dtype).encoding for name in strings} == {"utf-8"}
        assert file["concepts/name"].asstr()[:].tolist() == ["dog", "naïveté", "水"]
    assert found == designed


def test_h5py_alone_reads_the_attributes(finished):
    with h5py.File(finished.location / "encyclopedia.h5", "r") as file:
        attributes = {
            name: value.tolist() if hasattr(value, "tolist") else value for name, value in file.attrs.items()
        }
    names = "format model weights_sha256 layers layer_index pooling hidden_size stage run_id created"
    assert attributes.keys() == {*names.split(), "encyclo_version", "config"}
    assert attributes["format"] == "encyclo/1"
    expected = dataclasses.asdict(make_book().attributes)
    assert attributes == {**expected, "layers": [-2, -1], "layer_index": [3, 4]}


def test_samples_are_joined_in_the_order_asked_for_and_decode_by_the_documented_formula(finished):
    joined = Part.join([make_part(rows=4, first=10), make_part()])
    with h5py.File(finished.location / "encyclopedia.h5", "r") as file:
        group = file["samples"]
        values = group["activations"][...].astype(np.float32) * group["scale"][...][:, :, None]
        assert group["prompt"].asstr()[:].tolist() == joined.prompt
    np.testing.assert_array_equal(values, joined.values())
    assert np.abs(values).max() > np.finfo(np.float16).max


def test_a_chunk_is_one_layer_of_250_samples(store):
    store.write_part("a", make_part(rows=200))
    store.write_part("b", make_part(rows=301, first=200))
    with h5py.File(store.finalise(["a", "b"], make_book()), "r") as file:
        assert file["samples/activations"].chunks == (250, 1, HIDDEN)
        np.testing.assert_array_equal(file["samples/activations"][200:], make_part(301, 200).activations)


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


def test_finalising_again_replaces_the_file(finished):
    finished.finalise(["a"], make_book(model="another"))
    reader = finished.open()
    assert reader.book.attributes.model == "another"
    assert len(reader.owners()) == 6
    reader.close()
    assert listing(finished.location) == ["encyclopedia.h5", "parts/a.h5", "parts/b.h5"]


def test_the_old_file_is_intact_when_finalising_fails_half_way(finished):
    target = finished.location / "encyclopedia.h5"
    before = target.read_bytes()
    damaged = finished.location / "parts" / "b.h5"
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    with pytest.raises(DamagedError, match=r"parts/b\.h5"):
        finished.finalise(["a", "b"], make_book("new"))
    with pytest.raises(StoreError, match=r"parts/gone\.h5"):
        finished.finalise(["a", "gone"], make_book("new"))
    assert target.read_bytes() == before
    assert listing(finished.location) == ["encyclopedia.h5", "parts/a.h5", "parts/b.h5"]


@pytest.mark.parametrize("keep", [0, 7, 100, 3000, -1])
def test_a_cut_part_is_named_as_damaged(store, keep):
    store.write_part("a", make_part())
    path = store.location / "parts" / "a.h5"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedError, match=r"parts/a\.h5"):
        store.read_part("a")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Part)])
def test_a_part_without_one_of_its_columns_is_named_as_damaged(store, name):
    store.write_part("a", make_part())
    with h5py.File(store.location / "parts" / "a.h5", "a") as file:
        del file[name]
    with pytest.raises(DamagedError, match=rf"parts/a\.h5.*{name}"):
        store.read_part("a")


def test_a_part_whose_text_is_no_text_is_named_as_damaged(store):
    store.write_part("a", make_part())
    path = store.location / "parts" / "a.h5"
    path.write_bytes(path.read_bytes().replace("数".encode(), b"\xff\xfe\xfd"))
    with pytest.raises(DamagedError, match=r"parts/a\.h5"):
        store.read_part("a")


def test_changed_values_change_the_checksum(store):
    part = make_part()
    store.write_part("a", part)
    path = store.location / "parts" / "a.h5"
    content = bytearray(path.read_bytes())
    place = content.index(part.activations[:, 0].tobytes())  # a chunk: one layer of all rows
    for offset in range(0, part.activations[:, 0].nbytes, 9):
        changed = content.copy()
        changed[place + offset] ^= 4
        path.write_bytes(changed)
        assert store.read_part("a").checksum() != part.checksum()


def test_a_missing_part_or_encyclopedia_is_named(store):
    with pytest.raises(StoreError, match=r"parts/a\.h5"):
        store.read_part("a")
    with pytest.raises(StoreError, match=r"encyclopedia\.h5.*run"):
        store.open()


def test_another_hdf5_file_is_no_encyclopedia(store):
    with h5py.File(store.location / "encyclopedia.h5", "w") as file:
        file["data"] = [1, 2, 3]
    with pytest.raises(DamagedError, match=rf"encyclopedia\.h5 .*{FORMAT}"):
        store.open()


def test_a_damaged_encyclopedia_is_named(finished):
    path = finished.location / "encyclopedia.h5"
    with h5py.File(path, "a") as file:
        del file["signatures/mean"], file["samples/span"]
    with pytest.raises(DamagedError, match=r"encyclopedia\.h5.*mean"):
        finished.open()
    with h5py.File(path, "a") as file:
        file["signatures/mean"] = make_book().signatures.mean
    reader = finished.open()
    with pytest.raises(DamagedError, match=r"encyclopedia\.h5.*span"):
        reader.samples(slice(None))
    reader.close()
