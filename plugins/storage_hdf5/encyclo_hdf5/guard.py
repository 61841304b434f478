"""Checks an HDF5 file before anything in it is read, since it may come from a stranger.

Each refusal names the object. Refused are links other than hard links, members and types that the hierarchy does not
have, external or virtual storage, filters, shapes that the file's bytes don't fill, and texts that claim more bytes
than the file has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from encyclo.schema import TEXT, Array, check_shapes

REFERENCE = np.dtype([("length", "<u4"), ("heap", "<u8"), ("index", "<u4")])
"""A variable-length string in a dataset: a reference to its text, which is in a heap elsewhere in the file."""
LARGEST_ATTRIBUTE = 2**24


def check_file(file: h5py.File, hierarchy: Mapping[str, Mapping[str, Array]]) -> None:
    """Raise ValueError for anything that `hierarchy` (group, "" for the root: arrays) does not have."""
    size = Path(file.filename).stat().st_size
    if file.userblock_size:
        raise ValueError(
            "it begins with a user block (bytes before the HDF5 data), which encyclo does not write"
        )
    _check_attributes(file)
    found = {}
    _check_members(file, set(hierarchy) if "" not in hierarchy else set(hierarchy[""]))
    for name, arrays in hierarchy.items():
        group = file[name] if name else file
        if not isinstance(group, h5py.Group):
            raise ValueError(f"{group.name} is not a group")
        if name:
            _check_members(group, set(arrays))
        for key, array in arrays.items():
            dataset = group[key]
            _check_dataset(dataset, array, size)
            found[dataset.name] = (array, dataset.shape)
    check_shapes(found)


def chunk_offsets(dataset: h5py.Dataset, size: int) -> NDArray[np.int64]:
    """Return the offset of each layer's chunks in the file: int64 [blocks of rows, layers].

    Raises ValueError if a chunk is missing, filtered, or passes the file's end at `size`.
    """
    rows, _, hidden = dataset.chunks
    blocks = math.ceil(dataset.shape[0] / rows)
    if blocks * dataset.shape[1] != dataset.id.get_num_chunks():
        raise ValueError(f"{dataset.name} is missing chunks")
    offsets = np.full((blocks, dataset.shape[1]), -1, np.int64)
    length = rows * hidden * 2

    def note(info: h5py.h5d.StoreInfo) -> None:
        row, layer, _ = info.chunk_offset
        if info.filter_mask or info.size != length or not 0 < info.byte_offset <= size - length:
            raise ValueError(f"{dataset.name} has a chunk of the wrong size or outside the file")
        offsets[row // rows, layer] = info.byte_offset

    dataset.id.chunk_iter(note)
    if (offsets < 0).any():
        raise ValueError(f"{dataset.name} is missing chunks")
    return offsets


def _check_members(group: h5py.Group, expected: set[str]) -> None:
    if len(group) > len(expected) + 1_000:  # don't list millions of names to say so
        raise ValueError(f"{group.name} has {len(group):,} members, not {len(expected)}")
    names = set(group)
    for name in sorted(names - expected):
        raise ValueError(f"{group.name} holds {name[:80]!r}, which is not part of encyclo's format")
    for name in sorted(expected - names):
        raise ValueError(f"{group.name} lacks {name!r}")
    for name in sorted(names):
        # Asked before the member is opened: an external link would open another file.
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} in {group.name} is a soft or external link")


def _check_dataset(dataset: object, array: Array, size: int) -> None:
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{dataset!r} is not a dataset")
    name, layout = dataset.name, dataset.id.get_create_plist()
    if len(dataset.attrs):
        raise ValueError(
            f"{name} has the attribute {min(dataset.attrs)!r}, which this version does not write"
        )
    if layout.get_external_count():
        raise ValueError(f"{name} is stored in another file")
    if layout.get_nfilters():
        raise ValueError(f"{name} has filters; none are allowed")
    kind = layout.get_layout()
    if kind not in (h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
        raise ValueError(f"{name} has a virtual or unknown layout")
    _check_type(dataset, array)
    if dataset.shape is None:
        raise ValueError(f"{name} is empty")
    length = math.prod(dataset.shape) * (
        REFERENCE.itemsize if array.dtype == TEXT else dataset.dtype.itemsize
    )
    if length == 0:
        return
    if length > size:
        raise ValueError(f"{name} claims {length:,} bytes, more than the file has")
    if kind == h5py.h5d.CHUNKED:
        if len(dataset.shape) != 3 or dataset.chunks[1:] != (1, dataset.shape[2]):
            raise ValueError(f"{name} has chunks of another shape")
        return
    offset = dataset.id.get_offset()
    if offset is None or offset + length > size or dataset.id.get_storage_size() != length:
        raise ValueError(f"{name} claims {length:,} bytes that the file does not hold")
    if array.dtype == TEXT:
        _check_texts(dataset, offset, size)


def _check_type(dataset: h5py.Dataset, array: Array) -> None:
    if array.dtype == TEXT:
        text = h5py.check_string_dtype(dataset.dtype)
        right = text is not None and text.length is None and dataset.id.get_type().is_variable_str()
    else:
        right = dataset.dtype == np.dtype(array.dtype)
    if not right:
        raise ValueError(f"{dataset.name} is of the type {dataset.dtype}, not {array.dtype}")


def _check_texts(dataset: h5py.Dataset, offset: int, size: int) -> None:
    """Add up the texts' lengths from the references alone: many may point to one large text."""
    with open(dataset.file.filename, "rb") as file:
        file.seek(offset)
        references = np.frombuffer(file.read(len(dataset) * REFERENCE.itemsize), REFERENCE)
    if int(references["length"].sum(dtype=np.uint64)) > size or int(references["heap"].max()) >= size:
        raise ValueError(f"the texts of {dataset.name} claim more bytes than the file has")


def _check_attributes(file: h5py.File) -> None:
    if len(file.attrs) > 100:
        raise ValueError(f"it has {len(file.attrs):,} attributes")
    for name in file.attrs:
        attribute = file.attrs.get_id(name)
        if (size := attribute.get_storage_size()) > LARGEST_ATTRIBUTE:
            raise ValueError(f"its attribute {name!r} has {size:,} bytes, more than {LARGEST_ATTRIBUTE:,}")
        text = h5py.check_string_dtype(attribute.dtype)
        if not (text is not None and attribute.shape == ()) and attribute.dtype.kind not in "iu":
            raise ValueError(f"its attribute {name!r} is neither text nor whole numbers")
