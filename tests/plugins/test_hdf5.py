"""The store hdf5: h5py alone reads the finished file, and what is damaged is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest

from encyclo.errors import DamagedError
from encyclo.plugins.manager import Plugins
from encyclo.plugins.store_handles import StoreHandle
from encyclo.schema import FORMAT, Part
from encyclo_hdf5.store import Hdf5Store
from tests.plugins.test_stores import CONCEPTS, HIDDEN, LAYERS, SCHEMA, make_book, make_part


@pytest.fixture
def store(tmp_path: Path) -> Hdf5Store:
    (tmp_path / "parts").mkdir()
    return Hdf5Store(tmp_path, SCHEMA)


@pytest.fixture
def finished(store: Hdf5Store) -> Hdf5Store:
    store.write_part("a", make_part())
    store.write_part("b", make_part(rows=4, first=10))
    store.finalise(["b", "a"], make_book())
    return store


def test_the_plugin_gives_this_store(tmp_path):
    store = Plugins().call("store_activations", "hdf5", location=tmp_path, schema=SCHEMA)
    assert isinstance(store, StoreHandle) and type(store.given_to("hdf5")) is Hdf5Store
    assert (store.location, store.schema) == (tmp_path, SCHEMA)


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


def test_another_hdf5_file_is_no_encyclopedia(store):
    with h5py.File(store.location / "encyclopedia.h5", "w") as file:
        file["data"] = [1, 2, 3]
    with pytest.raises(DamagedError, match=rf"encyclopedia\.h5 .*{FORMAT}"):
        store.open()


@pytest.mark.parametrize(
    ("name", "value"), [("stage", "one"), ("model", 7), ("layers", 3), ("layers", [[1], [2]])]
)
def test_an_attribute_of_another_type_is_named(finished, name, value):
    with h5py.File(finished.location / "encyclopedia.h5", "a") as file:
        file.attrs[name] = value
    with pytest.raises(
        DamagedError, match=rf"encyclopedia\.h5 is damaged, or not .*: its attribute '{name}'"
    ):
        finished.open()


def test_a_damaged_encyclopedia_is_named(finished):
    path = finished.location / "encyclopedia.h5"
    with h5py.File(path, "a") as file:
        del file["signatures/mean"]
    with pytest.raises(DamagedError, match=r"encyclopedia\.h5.*mean"):
        finished.open()
