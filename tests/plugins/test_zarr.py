"""The store zarr: zarr alone reads the finished directory, which is as HDF5's, attribute for attribute."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from encyclo.errors import DamagedError, StoreError
from encyclo.plugins.manager import Plugins
from encyclo.plugins.store_handles import StoreHandle
from encyclo.schema import FORMAT, Part, SignatureTable
from encyclo_hdf5.store import Hdf5Store
from encyclo_zarr import layout
from encyclo_zarr.store import ZarrStore
from tests.plugins.test_stores import HIDDEN, LAYERS, SCHEMA, make_book, make_part


@pytest.fixture
def store(tmp_path: Path) -> ZarrStore:
    (tmp_path / "parts").mkdir()
    return ZarrStore(tmp_path, SCHEMA)


@pytest.fixture
def finished(store: ZarrStore) -> ZarrStore:
    store.write_part("a", make_part())
    store.write_part("b", make_part(rows=4, first=10))
    store.finalise(["b", "a"], make_book())
    return store


def test_the_plugin_gives_this_store(tmp_path):
    store = Plugins().call("store_activations", "zarr", location=tmp_path, schema=SCHEMA)
    assert isinstance(store, StoreHandle) and type(store.given_to("zarr")) is ZarrStore
    assert (store.location, store.schema) == (tmp_path, SCHEMA)


def test_zarr_alone_reads_the_same_hierarchy_as_hdf5s(finished, tmp_path):
    (tmp_path / "h" / "parts").mkdir(parents=True)
    other = Hdf5Store(tmp_path / "h", SCHEMA)
    other.write_part("a", make_part())
    other.write_part("b", make_part(rows=4, first=10))
    root = zarr.open_group(str(finished.location / "encyclopedia.zarr"), mode="r", use_consolidated=True)
    with h5py.File(other.finalise(["b", "a"], make_book()), "r") as file:
        assert set(root.attrs) == set(file.attrs)
        for name, value in file.attrs.items():
            assert root.attrs[name] == (value.tolist() if hasattr(value, "tolist") else value), name
        assert set(root) == set(file) == {"concepts", "samples", "signatures"}
        for group in file:
            assert set(root[group]) == set(file[group])
            for name, data in file[group].items():
                array = root[group][name]
                assert array.shape == data.shape and dict(array.attrs) == dict(data.attrs)
                if h5py.check_string_dtype(data.dtype):
                    assert array[:].tolist() == data.asstr()[:].tolist()
                else:
                    assert array.dtype == data.dtype
                    np.testing.assert_array_equal(array[...], data[...])


def test_samples_decode_by_the_documented_formula(finished):
    joined = Part.join([make_part(rows=4, first=10), make_part()])
    group = zarr.open_group(str(finished.location / "encyclopedia.zarr"), mode="r")["samples"]
    values = group["activations"][...].astype(np.float32) * group["scale"][...][:, :, None]
    np.testing.assert_array_equal(values, joined.values())


def test_a_shard_is_2000_samples_and_a_chunk_one_layer_of_250(store):
    parts = {name: make_part(rows, first) for name, rows, first in (("a", 1990, 0), ("b", 311, 1990))}
    for name, part in parts.items():
        store.write_part(name, part)
    root = store.finalise(["a", "b"], make_book())
    array = zarr.open_group(str(root), mode="r")["samples/activations"]
    assert (array.shards, array.chunks) == ((2000, len(LAYERS), HIDDEN), (250, 1, HIDDEN))
    joined = Part.join(list(parts.values()))
    np.testing.assert_array_equal(array[...], joined.activations)
    assert len([p for p in (root / "samples/activations").rglob("*") if p.is_file()]) == 3
    reader = store.open()
    for rows in (np.arange(1980, 2010), np.array([0, 249, 250, 1999, 2000, 2300]), np.arange(2301)):
        np.testing.assert_array_equal(reader.activations(rows), joined.activations[rows])
        np.testing.assert_array_equal(reader.activations(rows, [1]), joined.activations[rows][:, [1]])
        assert reader.samples(rows).prompt == [joined.prompt[i] for i in rows]


def test_several_shards_of_texts_and_chunks_of_signatures(store, monkeypatch):
    monkeypatch.setitem(layout.ROWS_PER_SHARD, "prompt", 500)
    part = make_part(1301)
    store.write_part("a", part)
    values = np.random.default_rng(0).normal(size=(601, len(LAYERS), HIDDEN)).astype(np.float32)
    book = make_book()
    book = dataclasses.replace(
        book, signatures=SignatureTable(values, -values, np.arange(601, dtype=np.int32))
    )
    root = store.finalise(["a"], book)
    group = zarr.open_group(str(root), mode="r")
    assert group["samples/prompt"][...].tolist() == part.prompt
    assert len(list((root / "samples/prompt").glob("c.*"))) == 3
    np.testing.assert_array_equal(group["signatures/mean"][...], values)
    with pytest.raises(
        DamagedError, match=r"dimension 1 must be .* in the other arrays"
    ):  # more signatures than concepts
        store.open()
    store.finalise(["a"], make_book())
    assert store.open().samples(np.array([0, 249, 499, 500, 1300])).prompt == [
        part.prompt[i] for i in (0, 249, 499, 500, 1300)
    ]


@pytest.mark.parametrize(
    "data",
    [b"\x02\0\0\0\x01\0\0\0a", b"\x01\0\0\0\xff\xff\xff\xffa", b"\xff\xff\xff\xff", b"\x01\0\0\0\x01\0\0\0\xff"],
)  # fmt: skip
def test_texts_that_pass_their_chunk_or_are_no_utf_8_are_refused(store, data):
    store.write_part("a", make_part(int.from_bytes(data[:4], "little") % 250))
    path = store.location / "parts" / "a.zarr.zip"
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, data if member == "family/c.0" else content)
    with pytest.raises(DamagedError, match=r"a\.zarr\.zip is damaged") as caught:
        store.read_part("a")
    assert "\n" not in str(caught.value)


def test_the_metadata_is_format_3_and_consolidated_once(finished):
    root = finished.location / "encyclopedia.zarr"
    document = json.loads((root / "zarr.json").read_text())
    assert document["zarr_format"] == 3
    assert len(document["consolidated_metadata"]["metadata"]) == 3 + 11 + 7 + 3
    assert not list(root.rglob(".z*")) and not list(root.rglob("*.partial"))


def test_a_parts_bytes_depend_on_its_samples_alone(store):
    store.write_part("a", make_part())
    store.write_part("b", make_part())
    a, b = sorted((store.location / "parts").iterdir())
    assert a.read_bytes() == b.read_bytes()


def test_zarr_opens_a_part(store):
    store.write_part("a", make_part())
    with zarr.storage.ZipStore(store.location / "parts" / "a.zarr.zip", mode="r") as archive:
        group = zarr.open_group(archive, mode="r")
        np.testing.assert_array_equal(group["activations"][...], make_part().activations)
        assert group["prompt"][...].tolist() == make_part().prompt


def test_another_zarr_directory_is_no_encyclopedia(store):
    root = zarr.create_group(str(store.location / "encyclopedia.zarr"))
    root["data"] = np.arange(3)
    with pytest.raises(DamagedError, match=r"encyclopedia\.zarr is damaged"):
        store.open()


def test_another_format_is_named(finished):
    path = finished.location / "encyclopedia.zarr" / "zarr.json"
    path.write_text(path.read_text().replace(FORMAT, "encyclo/9"))
    with pytest.raises(DamagedError, match=rf"has the format 'encyclo/9', but this encyclo reads '{FORMAT}'"):
        finished.open()


def test_a_missing_directory_is_named(store):
    with pytest.raises(StoreError, match=r"encyclopedia\.zarr; run the same"):
        store.open()
